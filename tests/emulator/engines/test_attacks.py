"""Hostile programs in a machine, whose engine root runs, or an ordinary user."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.emulator.engines.somebody import NOBODY, REPOSITORY, as_user, python_for, reachable

pytestmark = pytest.mark.timeout(180)

DOCKERS_CAPABILITIES_AND_PTRACE = 0xA80C25FB


@pytest.fixture
def directory() -> Iterator[Path]:
    """One that an ordinary user can reach, too."""
    with reachable() as path:
        yield path


@pytest.fixture
def home() -> Iterator[Path]:
    """In memory: an ordinary user's copy of all directories is made there."""
    memory = "/dev/shm"
    with reachable(memory if Path(memory).is_dir() else None) as path:
        yield path


def run(directory: Path, home: Path, mode: str, uid: int) -> dict[str, Any]:
    python, environment = python_for(uid, home)
    done = subprocess.run(
        [python, "-m", "tests.emulator.engines.besieged", str(directory), mode],
        **as_user(uid),
        env=environment,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


@pytest.fixture(params=["root", "nobody"])
def uid(request: pytest.FixtureRequest) -> int:
    if os.geteuid() == 0:
        return 0 if request.param == "root" else NOBODY
    if request.param == "root":
        pytest.skip("needs root")
    return os.geteuid()


def test_walls_hold(directory: Path, home: Path, uid: int) -> None:
    said = run(directory, home, "walls", uid)
    assert {name for name, result in said["results"].items() if result == "SUCCEEDED"} == set()
    assert len(said["results"]) > 80
    assert said["outsider_died"] is None
    for kind in ("CapPrm:", "CapEff:", "CapBnd:"):
        assert int(said["capabilities"][kind], 16) & ~DOCKERS_CAPABILITIES_AND_PTRACE == 0
    # The other way out: pasta where it can be had, else the proxy.
    proxied = any(name.startswith("proxy to") for name in said["results"])
    assert proxied or Path("/dev/net/tun").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_attacks_succeed_where_there_are_no_walls(directory: Path, home: Path) -> None:
    """So that those that failed above did not fail for a mistake of their own."""
    results = run(directory, home, "bare", 0)["results"]
    succeeded = {name for name, result in results.items() if result == "SUCCEEDED"}
    assert {
        *("connect to 127.0.0.1", "connect to ::1", "connect to ::ffff:127.0.0.1"),
        *("abstract socket", "signal", "see in /proc", "pidfd", "ptrace", "read memory"),
        *("key of ring -3", "request_key", "key by number", "list of keys", "file handle"),
        f"read {directory / 'secret'}",
    } <= succeeded
    assert any(name.startswith("net namespace of this computer") for name in succeeded)
