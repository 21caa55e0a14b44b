"""CI shards with one `--fly-run-id` share a machine: its name in the app is their only lock."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_flymachines.errors import NotFound

from .cloud import APP, Cloud, Project, cloud, end, until

TESTS = """
import pathlib, time

def test_it(fly_sandbox):
    assert fly_sandbox.exec("echo hi").stdout == "hi\\n"
    pathlib.Path("ready").touch()
    while not pathlib.Path("over").exists():
        time.sleep(0.05)
    assert fly_sandbox.exec("echo ho").stdout == "ho\\n"
"""
ID = "--fly-run-id=ci 7"


@pytest.fixture
def fly() -> Iterator[Cloud]:
    """Its lists are old."""
    with cloud("--list-delay", "2000") as found:
        yield found


class Shards:
    """Runs on computers of their own: no file of one is seen by another."""

    def __init__(self, fly: Cloud, path: Path, *args: str) -> None:
        self.projects = [Project(path / name, TESTS) for name in "abc"]
        self.runs = [one.start(ID, *args, env=fly.environment) for one in self.projects]

    def ready(self) -> bool:
        return all((one.path / "ready").exists() for one in self.projects)

    def end(self, number: int) -> str:
        (self.projects[number].path / "over").touch()
        ended = end(self.runs[number])
        ended.has("1 passed")
        return ended.output

    def kill(self, number: int) -> None:
        os.killpg(self.runs[number].pid, signal.SIGKILL)
        end(self.runs[number])


def statuses(fly: Cloud, kind: str) -> list[int]:
    return sorted(request.status for request in fly.requests() if request.kind == kind)


def machine_is_there(fly: Cloud) -> bool:
    """Lists are old, so the machine that all of them waited for is asked itself."""
    (machine_id,) = {r.path.split("/")[5] for r in fly.requests() if r.path.endswith("/wait")}
    try:
        return fly.client.get_machine(APP, machine_id).state == "started"
    except NotFound:
        return False


def test_shards_that_start_at_once_share_and_the_last_one_ends_it(
    fly: Cloud, tmp_path: Path
) -> None:
    shards = Shards(fly, tmp_path)
    assert until(shards.ready, 120)
    # three creates at once, of which two conflict
    assert statuses(fly, "POST machines") == [200, 409, 409]
    outputs = [shards.end(1), shards.end(0)]
    assert "is used by 2 other shard(s)" in outputs[0]
    assert "is used by 1 other shard(s)" in outputs[1]
    assert machine_is_there(fly)
    outputs.append(shards.end(2))
    # what it cost is told once, by the shard that made it
    assert sum("1 machine(s), " in output for output in outputs) == 1
    assert statuses(fly, "DELETE machines/ID") == [200]
    assert not machine_is_there(fly)


def test_after_a_shard_was_killed_the_time_to_live_ends_it(fly: Cloud, tmp_path: Path) -> None:
    """Nobody can know that it was, and not just slow."""
    shards = Shards(fly, tmp_path, "--fly-ttl=12")
    assert until(shards.ready, 120)
    shards.kill(0)
    assert "is used by 2 other shard(s)" in shards.end(1)
    shards.end(2)
    assert machine_is_there(fly)
    assert until(lambda: not machine_is_there(fly), 60)
