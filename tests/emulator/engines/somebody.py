"""Running Python as another user of this computer, for tests that root starts."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[3]
NOBODY = 65534


@contextlib.contextmanager
def reachable(parent: str | None = None) -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="walls-", dir=parent))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


def as_user(uid: int) -> dict[str, Any]:
    return {} if uid == os.geteuid() else {"user": uid, "group": uid, "extra_groups": []}


def python_for(uid: int, home: Path) -> tuple[str, dict[str, str]]:
    """A Python that this user may run, with what the engine needs."""
    packages = sysconfig.get_path("purelib")
    environment = {
        **os.environ,
        "HOME": str(home),
        "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{packages}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    for python in (sys.executable, "/usr/bin/python3"):
        try:
            subprocess.run(
                [python, "-c", "import msgspec, tests, pytest_flymachines"],
                **as_user(uid),
                env=environment,
                check=True,
                capture_output=True,
            )
        except (OSError, subprocess.CalledProcessError):
            continue
        return python, environment
    pytest.skip(f"user {uid} can run no Python that has our packages")
