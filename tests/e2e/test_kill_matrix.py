"""Whatever is killed, at whatever request: after the time to live, nothing of ours is left.

Against an emulator that lives on, as Fly does. At each kind of request of a run's life there are
three moments: before it takes effect, after it did but before its answer arrives, and after the
answer. A fault holds the request or its answer up until the kill; the first two moments are
taken for every request, and the third is the first moment of the next one. All cases run at once
and wait for the same time to live. Each has its victim: the controller, a worker, or all;
requests of the launch are a worker's, those of the sweep and the end are the controller's.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_flymachines.api import Machine
from pytest_flymachines.sweep import sweep

from .cloud import APP, Cloud, Project, cloud, end, until

TTL_S = 10
TESTS = """
import pytest

@pytest.mark.parametrize("number", range(4))
def test_it(fly_sandbox, number):
    fly_sandbox.exec("true")
"""
CONFTEST = """
import os, pathlib

def pytest_sessionstart(session):
    worker = os.environ.get("PYTEST_XDIST_WORKER", "controller")
    pathlib.Path(f"{worker}.pid").write_text(str(os.getpid()))
"""
HELD_S = 6

REQUESTS = {
    "sweep": ("GET", f"/v1/apps/{APP}/machines", 0),
    "volume": ("POST", f"/v1/apps/{APP}/volumes", 0),
    "create": ("POST", f"/v1/apps/{APP}/machines", 0),
    "wait": ("GET", f"/v1/apps/{APP}/machines/*/wait", 0),
    "look": ("GET", f"/v1/apps/{APP}/machines/?*", 0),
    "list": ("GET", f"/v1/apps/{APP}/machines", 1),
    "destroy": ("DELETE", f"/v1/apps/{APP}/machines/*", 0),
    "delete volume": ("DELETE", f"/v1/apps/{APP}/volumes/*", 0),
}
AT_THE_END = ("list", "destroy", "delete volume")


@dataclass(frozen=True)
class Case:
    """Whom to kill, at which request, before or after its effect."""

    request: str
    moment: str
    victim: str

    def __str__(self) -> str:
        return f"{self.victim} {self.moment} {self.request}"


def cases() -> Iterator[Case]:
    """Every request and moment; the create with all victims, the others with one each."""
    for request in REQUESTS:
        usual = "controller" if request in (*AT_THE_END, "sweep") else "worker"
        for moment in ("before", "after"):
            if request == "create":
                yield from (Case(request, moment, who) for who in ("controller", "worker", "all"))
            else:
                yield Case(request, moment, usual if moment == "before" else "all")


def kill(case: Case, project: Project, process: subprocess.Popen[str]) -> None:
    if case.victim == "worker":
        for path in project.path.glob("gw*.pid"):
            os.kill(int(path.read_text()), signal.SIGKILL)
    elif case.victim == "controller":
        os.kill(process.pid, signal.SIGKILL)
    else:
        os.killpg(process.pid, signal.SIGKILL)


def play(fly: Cloud, case: Case, path: Path) -> None:
    """One run that is killed at its moment."""
    project = Project(path, TESTS, CONFTEST)
    method, pattern, skip = REQUESTS[case.request]
    fly.fault(
        f"delay={HELD_S},when={case.moment},method={method},path={pattern},skip={skip},count=1"
    )
    args = ["-n", "1", "--max-worker-restart=0", f"--fly-ttl={TTL_S}", "--fly-volume-gb=1"]
    process = project.start(*args, env=fly.environment)
    until(lambda: fly.hits() == [1] or process.poll() is not None, 60)
    assert fly.hits() == [1], f"{case}: not reached: {end(process).output}"
    time.sleep(0.5)  # for the effect, where it comes before the delay
    kill(case, project, process)
    end(process)
    fly.clear_faults()
    assert until(lambda: not alive(process.pid), 60), f"{case}: a worker lives on"


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def foreign(fly: Cloud) -> Machine:
    """A machine and a volume that are somebody else's."""
    fly.client.create_volume(APP, "data", region="ord", size_gb=1)
    config = {"image": "alpine", "init": {"exec": ["sleep", "600"]}}
    return fly.client.create_machine(APP, config, name="foreign")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("FLY_", "PYTEST_")):
            monkeypatch.delenv(name)


def test_nothing_outlives_its_time_to_live(tmp_path: Path) -> None:
    """All moments of all requests, then one wait for the time to live of all of them."""
    with ExitStack() as stack:
        chosen = list(cases())
        flies = [stack.enter_context(cloud()) for _ in chosen]
        others = [foreign(fly) for fly in flies]
        paths = [tmp_path / str(number) for number in range(len(chosen))]
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(play, flies, chosen, paths))
        for case, fly, other in zip(chosen, flies, others, strict=True):
            check(fly, case, other)


def check(fly: Cloud, case: Case, other: Machine) -> None:
    """Ours are gone, and what is not ours stands untouched."""
    assert until(lambda: not fly.machines(), 3 * TTL_S), f"{case}: a machine"

    def swept() -> bool:
        """What the start of the next run does; a machine's end does not delete its volume."""
        sweep(fly.client, APP)
        return not fly.volumes()

    assert until(swept, 6 * TTL_S), f"{case}: a volume"
    assert fly.client.get_machine(APP, other.id).state == "started", case
    assert [volume.name for volume in fly.client.list_volumes(APP)] == ["data"], case
