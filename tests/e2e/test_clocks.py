"""Clocks that are wrong by a day change nothing: a machine's deadline counts its own uptime."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from .cloud import Cloud, Project, end, until

#: A run until a file is there, on a computer whose clock is wrong.
TESTS = """
import pathlib, time

def test_it(fly_sandbox):
    pathlib.Path("ready").touch()
    while not pathlib.Path("over").exists():
        time.sleep(0.05)
    assert fly_sandbox.exec("echo hi").stdout == "hi\\n"
"""
CLOCK = """
import time

right = time.time
time.time = lambda: right() + {seconds}
"""
DAY_S = 24 * 3600
RENEWAL = "POST machines/ID/metadata"


def test_computers_with_wrong_clocks_leave_each_other_alone(fly: Cloud, tmp_path: Path) -> None:
    """One is a day behind, and the sweep of one that is a day ahead sees its machine overdue."""
    behind = Project(tmp_path / "behind", TESTS, CLOCK.format(seconds=-DAY_S))
    runs = behind.start("--fly-ttl=10", env=fly.environment)
    assert until((behind.path / "ready").exists, 60)

    ahead = Project(tmp_path / "ahead", TESTS, CLOCK.format(seconds=DAY_S))
    sweeps = ahead.start(env=fly.environment)
    assert until((ahead.path / "ready").exists, 60)
    assert until(lambda: fly.count(RENEWAL) >= 4, 60), "it was not renewed past its first deadline"
    (ahead.path / "over").touch()
    ended = end(sweeps)
    ended.has("1 passed")
    assert "swept up" not in ended.output

    assert len(fly.machines()) == 1
    os.killpg(runs.pid, signal.SIGKILL)
    end(runs)
    assert until(lambda: not fly.machines(), 60)
