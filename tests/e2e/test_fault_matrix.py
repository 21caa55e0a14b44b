"""Every request of a run's life fails once, in every way: the tests pass, and nothing is left.

One run for each way, all at once, each in an app of its own on an emulator whose lists lag.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from .cloud import Cloud, Project, cloud, until
from .forks import Forks

TESTS = """
import pathlib, time

def test_it(fly_sandbox):
    assert fly_sandbox.exec("echo hi").stdout == "hi\\n"
    for _ in range(1200):
        if pathlib.Path("renewed").exists():
            break
        time.sleep(0.05)

def test_after(fly_sandbox):
    assert fly_sandbox.exec("echo hi").stdout == "hi\\n"
"""
#: Nobody waits a minute for an answer that does not come; and the last request by which the
#: deadline is moved on tells that it was answered.
IMPATIENT = """
import pathlib

from pytest_flymachines.api import MachinesClient
from pytest_flymachines.api.caller import Caller
from pytest_flymachines.marks import DEADLINE_KEY

Caller._call.__kwdefaults__["timeout_s"] = 1.5
write = MachinesClient.set_metadata

def set_metadata(client, app, machine_id, key, value):
    write(client, app, machine_id, key, value)
    if key == DEADLINE_KEY:
        pathlib.Path("renewed").touch()

MachinesClient.set_metadata = set_metadata
"""
ANSWERS = ("status=429", "status=500", "status=503", "status=408")
LATE = ("status=500,when=after", "status=408,when=after")
BROKEN = ("reset=before", "reset=after", "lost", "delay=3,when=before", "delay=3,when=after")
WAYS = (*ANSWERS, *LATE, *BROKEN)
ID = 14 * "?"
REQUESTS = [
    # sweep
    ("GET", "machines", 0),
    ("GET", "volumes", 0),
    # launch
    ("POST", "volumes", 0),
    ("POST", "machines", 0),
    ("GET", f"machines/{ID}/wait", 0),
    ("GET", f"machines/{ID}", 0),
    # renewal
    ("POST", f"machines/{ID}/exec", 0),
    ("POST", f"machines/{ID}/metadata/*", 0),
    # end
    ("GET", "machines", 1),
    ("DELETE", f"machines/{ID}", 0),
    ("GET", f"machines/{ID}", 1),
    ("GET", "volumes", 1),
    ("DELETE", "volumes/*", 0),
]


@pytest.fixture
def fly() -> Iterator[Cloud]:
    apps = [f"--app=app-{number}" for number in range(len(WAYS))]
    with cloud("--list-delay=1000", *apps) as found:
        yield found


def play(fly: Cloud, runs: Forks, path: Path, number: int) -> str:
    """What is wrong after a run in which everything failed once in one way; empty if nothing."""
    app, faults = f"app-{number}", {}
    for method, wanted, skip in REQUESTS:
        there = f"method={method},path=/v1/apps/{app}/{wanted},skip={skip}"
        faults[there] = fly.fault(f"{WAYS[number]},{there},count=1")
    project = Project(path / app, TESTS, IMPATIENT)
    args = [f"--fly-app={app}", "--fly-ttl=20", "--fly-volume-gb=1"]
    ended = runs.run(project, *args, env=fly.environment, plugins=())
    missed = [there for there, fault in faults.items() if not fly.spent(fault)]
    gone = until(lambda: not fly.machines(app) and not fly.volumes(app), 60)
    expected = ("2 passed", "1 machine(s)")
    said = all(text in ended.output for text in expected) and "LEFT BEHIND" not in ended.output
    if gone and not missed and said:
        return ""
    gone_or_not = "gone" if gone else "not gone"
    return f"--- {WAYS[number]}, {gone_or_not}, not reached: {missed}\n{ended.output}"


def test_every_fault_at_every_request_is_outlived(fly: Cloud, runs: Forks, tmp_path: Path) -> None:
    with ThreadPoolExecutor(6) as pool:
        wrong = list(filter(None, pool.map(partial(play, fly, runs, tmp_path), range(len(WAYS)))))
    assert not wrong, "\n".join(wrong)
