"""The walls that an ordinary user's emulator makes, where root runs the tests."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.emulator.engines.somebody import NOBODY, REPOSITORY, as_user, python_for, reachable

SUITES = ("test_bubblewrap.py", "test_conformance.py", "test_layers.py")


@pytest.mark.skipif(os.geteuid() != 0, reason="those who are not root run these tests directly")
@pytest.mark.timeout(700)
def test_engine_does_for_an_ordinary_user_what_it_does_for_root() -> None:
    """Files, users, limits, a fork bomb, a memory hog, and what every engine does."""
    # In memory: a copy of all of this computer's directories is made there.
    with reachable("/dev/shm" if Path("/dev/shm").is_dir() else None) as home:
        python, environment = python_for(NOBODY, home)
        environment = {k: v for k, v in environment.items() if not k.startswith("PYTEST_")}
        suites = [Path(__file__).with_name(name) for name in SUITES]
        options = ["-q", "-rfE", "-n", "0", "-p", "no:cacheprovider", f"--basetemp={home}/tmp"]
        done = subprocess.run(
            [python, "-m", "pytest", *options, *suites],
            **as_user(NOBODY),
            env=environment | {"TEST_ENGINES": "bubblewrap"},
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=600,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.splitlines()[-1].split()[0]) > 55  # passed
