"""Whatever is killed, at whatever request: after the time to live, nothing of ours is left.

Against an emulator that lives on, as Fly does, and through a gate that sees every request of a
run. At each there are three moments: before it is sent, after it was carried out but before its
answer arrives, and after the answer. Killed are a controller whose worker is left to notice, and
everything at once, which is a run without workers; those cases run side by side, each in an app
of its own. A run goes on without a worker, so two runs have theirs killed at one moment after the
other. Workers have ended when the end has come, so there the controller is everything.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pytest_flymachines.marks import DEADLINE_KEY, RUN_KEY, TTL_KEY, volume_name
from pytest_flymachines.sweep import sweep

from .cloud import Cloud, Project, cloud, until
from .forks import Forks, alive, forks
from .gate import MOMENTS, Gate, Stop, gate

TTL_S = 10
TESTS = """
import pathlib, pytest, time

@pytest.mark.parametrize("number", range({count}))
def test_it(fly_sandbox, number):
    while not pathlib.Path("over").exists():
        time.sleep(0.05)
"""
WITHOUT_SANDBOX = "import time\ndef test_it(): time.sleep(600)\n"
CONFTEST = """
import os, pathlib

def pytest_sessionstart(session):
    worker = os.environ.get("PYTEST_XDIST_WORKER", "controller")
    pathlib.Path(f"{worker}.pid").write_text(str(os.getpid()))
"""

WAIT, DESTROY = "GET machines/ID/wait", "DELETE machines/ID"
EXEC, RENEWAL = "POST machines/ID/exec", "renew.new"
SWEEP = [
    ("GET machines", "", ""),
    ("GET machines/ID", "", ""),
    (DESTROY, "", ""),
    ("GET machines/ID", DESTROY, ""),
    ("GET volumes", "", ""),
    ("DELETE volumes/ID", "", ""),
]
LAUNCH = [
    ("POST volumes", "", ""),
    ("POST machines", "", ""),
    (WAIT, "", ""),
    ("GET machines/ID", WAIT, ""),
    (EXEC, "", ""),
]
RENEW = [(EXEC, "", RENEWAL), ("POST machines/ID/metadata", "", "")]
END = [
    ("GET machines", WAIT, ""),
    (DESTROY, "", ""),
    ("GET machines/ID", DESTROY, ""),
    ("GET volumes", DESTROY, ""),
    ("DELETE volumes/ID", "", ""),
]


def stops(requests: list[tuple[str, str, str]]) -> Iterator[Stop]:
    for kind, after, holds in requests:
        for moment in MOMENTS:
            yield Stop(kind, moment, after, holds)


@dataclass(frozen=True)
class Case:
    """Whom to kill, where in a run's life; a worker has many stops, the others one."""

    victim: str
    phase: str
    stops: tuple[Stop, ...]

    def __str__(self) -> str:
        return f"{self.victim} killed at {self.phase}: {' / '.join(map(str, self.stops))}"


def cases() -> Iterator[Case]:
    """Those that take longest come first."""
    yield Case("worker", "renewal", tuple(stops(RENEW)))
    yield Case("worker", "launch", tuple(stops(LAUNCH)))
    for phase, requests in (("renewal", RENEW), ("launch", LAUNCH)):
        for stop in stops(requests):
            yield Case("controller", phase, (stop,))
            yield Case("all", phase, (stop,))
    for phase, requests in (("end", END), ("sweep", SWEEP)):
        for stop in stops(requests):
            yield Case("all", phase, (stop,))


class Play:
    """One case, in an app of its own."""

    def __init__(self, fly: Cloud, case: Case, app: str, path: Path) -> None:
        self.fly, self.case, self.app, self.path = fly, case, app, path
        self.started = threading.Event()
        self.group = 0
        config = {"image": "alpine", "init": {"exec": ["sleep", "600"]}}
        self.foreign = fly.client.create_machine(app, config, name="foreign").id
        fly.client.create_volume(app, "data", region="ord", size_gb=1)
        if case.phase == "sweep":
            past = {RUN_KEY: "past", TTL_KEY: "1", DEADLINE_KEY: str(int(time.time()) - 60)}
            fly.client.create_machine(app, {**config, "metadata": past}, name="overdue")
            fly.client.create_volume(app, volume_name("past", 0), region="ord", size_gb=1)

    def run(self, from_: Forks) -> None:
        """Until the kill, or the end where workers are killed."""
        count = 3 * len(self.case.stops)
        tests = WITHOUT_SANDBOX if self.case.phase == "sweep" else TESTS.format(count=count)
        project = Project(self.path, tests, CONFTEST)
        if self.case.phase in ("launch", "end"):
            self.over()
        args = [f"--fly-app={self.app}", f"--fly-ttl={TTL_S}", "--fly-volume-gb=1"]
        args += ["--fly-agent=off", "-q"]
        if self.case.victim != "all":
            args += ["-n1", "--max-worker-restart=99"]
        with gate(self.fly.emulator.api_url, self.case.stops, self.kill) as passage:
            there = {**self.fly.environment, "FLY_FLAPS_BASE_URL": passage.url}
            there = project.environment(there)
            self.group = from_.start(project.arguments(*args), self.path, there)
            self.started.set()
            self.wait(passage)

    def wait(self, passage: Gate) -> None:
        until(lambda: passage.done or not alive(self.group), 200)
        if self.case.victim == "worker":
            self.over()
        ended = until(lambda: not alive(self.group), 60)
        if not ended:
            os.killpg(self.group, signal.SIGKILL)
        output = (self.path / "output").read_text()
        assert passage.done, f"{self.case}: only {passage.passed} reached:\n{output}"
        assert ended, f"{self.case}: something lives on:\n{output}"
        if self.case.victim == "worker":
            assert self.left() == [], f"{self.case}:\n{output}"

    def over(self) -> None:
        """Let the tests end."""
        (self.path / "over").touch()

    def kill(self, _: Stop) -> bool:
        """In the gate, while the request is held; a worker outlives its controller for a while."""
        self.started.wait()
        if self.case.victim == "all":
            os.killpg(self.group, signal.SIGKILL)
            return False
        if self.case.victim == "controller":
            os.kill(self.group, signal.SIGKILL)
            return self.case.phase == "launch"
        last = max(self.path.glob("gw*.pid"), key=lambda path: path.stat().st_mtime_ns)
        os.kill(int(last.read_text()), signal.SIGKILL)
        return self.case.phase == "renewal"

    def left(self) -> list[str]:
        """What is ours and alive."""
        machines = [machine.id for machine in self.fly.machines(self.app)]
        return machines + [volume.id for volume in self.fly.volumes(self.app)]

    def swept(self) -> bool:
        """The start of the next run; the end of a machine does not delete its volume."""
        sweep(self.fly.client, self.app)
        return not self.left()

    def check(self) -> None:
        """Ours are gone, and what is not ours stands untouched."""
        if self.case.phase != "sweep":
            assert until(lambda: not self.fly.machines(self.app), 10 * TTL_S), self.case
        assert until(self.swept, 10 * TTL_S), f"{self.case}: {self.left()}"
        assert self.fly.client.get_machine(self.app, self.foreign).state == "started", self.case
        names = [volume.name for volume in self.fly.client.list_volumes(self.app)]
        assert names == ["data"], self.case


def test_nothing_outlives_its_time_to_live(tmp_path: Path) -> None:
    """All moments of all requests, then one wait for the time to live of all of them."""
    apps = {f"app-{number}": case for number, case in enumerate(cases())}
    named = [f"--app={app}" for app in apps]
    with cloud(*named) as fly, forks() as from_, ThreadPoolExecutor(6) as pool:
        plays = [Play(fly, case, app, tmp_path / app) for app, case in apps.items()]
        list(pool.map(partial(Play.run, from_=from_), plays))
        for play in plays:
            play.check()
