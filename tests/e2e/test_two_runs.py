"""Two runs at once in one checkout have nothing to do with each other."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from .cloud import Cloud, Project, end, until
from .test_sharing import MANY


def test_each_has_its_own_machine(fly: Cloud, tmp_path: Path) -> None:
    project = Project(tmp_path, MANY.format(count=20))
    both = [project.start("-n", "4", env=fly.environment) for _ in range(2)]
    for process in both:
        end(process).has("20 passed", "1 machine(s)")
    assert (fly.count("POST machines"), fly.count("DELETE machines/ID")) == (2, 2)
    assert fly.machines() == []


def test_one_that_is_killed_while_it_holds_the_lock_stops_nobody(
    fly: Cloud, tmp_path: Path
) -> None:
    """Its worker waits for the create's answer, under the lock, when everything is killed."""
    project = Project(tmp_path, MANY.format(count=20))
    fly.fault("delay=20,when=after,method=POST,path=*/machines,count=1")
    killed = project.start("-n", "4", "--fly-ttl=10", env=fly.environment)
    assert until(lambda: fly.hits() == [1], 60)
    other = project.start("-n", "4", env=fly.environment)
    os.killpg(killed.pid, signal.SIGKILL)
    end(killed)
    end(other).has("20 passed", "1 machine(s)")
    assert until(lambda: not fly.machines(), 40)


def test_a_worker_that_is_killed_while_it_holds_the_lock_is_followed(
    fly: Cloud, tmp_path: Path
) -> None:
    """The next worker gets the lock, and the machine that is there already: never two."""
    conftest = """
import os, pathlib

def pytest_fixture_setup(fixturedef):
    if fixturedef.argname == "fly_sandbox":
        pathlib.Path(os.environ["PYTEST_XDIST_WORKER"] + ".pid").write_text(str(os.getpid()))
"""
    project = Project(tmp_path, MANY.format(count=8), conftest)
    fly.fault("delay=4,when=after,method=POST,path=*/machines,count=1")
    process = project.start("-n", "1", env=fly.environment)
    assert until(lambda: fly.hits() == [1], 60)
    os.kill(int((project.path / "gw0.pid").read_text()), signal.SIGKILL)
    ended = end(process)
    ended.has("1 failed", "7 passed", "1 machine(s)")
    assert fly.machines() == []
