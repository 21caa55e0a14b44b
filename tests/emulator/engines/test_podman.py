"""The docker engine over podman's socket."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.emulator.engines import podmand

SUITE = Path(__file__).with_name("test_conformance.py")
# Its processes and mounts end with this too, however it ends.
APART = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


@pytest.mark.timeout(900)
def test_it_passes_the_suite_of_all_engines_but_for_what_its_notes_say() -> None:
    """In a network of its own, so that podman's rules and settings end with it."""
    if why := podmand.missing():
        pytest.skip(why)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    suite = [sys.executable, "-m", "pytest", "-q", "-rxX", "-p", "no:cacheprovider", "-n", "0"]
    done = subprocess.run(
        [*APART, "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *suite, SUITE],
        env=environ | {"TEST_ENGINES": "podman"},
        cwd=SUITE.parents[3],
        capture_output=True,
        text=True,
        timeout=840,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout.splitlines()[-1]
    assert "podman differs" in done.stdout
