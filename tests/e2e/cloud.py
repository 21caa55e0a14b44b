"""A stand-alone emulator that outlives runs, as Fly does, and runs against it in live mode."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from pytest_flymachines.api import Machine, MachinesClient, Volume
from pytest_flymachines.emulator.launch import EmulatorProcess, launch
from pytest_flymachines.marks import volume_ttl_s

APP = "cook-sandbox"
#: Before a command: its process does not outlive a test run that is killed.
DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")


@dataclass(frozen=True)
class Request:
    """One line of the emulator's log."""

    method: str
    path: str
    status: int
    time: float

    @property
    def kind(self) -> str:
        return kind_of(self.method, self.path)


def kind_of(method: str, path: str) -> str:
    """What a request does, without ids: `POST machines`, `GET machines/ID/wait`."""
    parts = path.partition("?")[0].split("/")[4:]
    if len(parts) > 1:
        parts[1] = "ID"
    return f"{method} {'/'.join(parts[:3])}"


class Cloud:
    """What the tests see of the emulator."""

    def __init__(self, emulator: EmulatorProcess) -> None:
        self.emulator = emulator
        self.client = MachinesClient(emulator.token, base_url=emulator.api_url, pace=False)
        self._control = httpx.Client(
            base_url=emulator.control_url,
            headers={"authorization": f"Bearer {emulator.token}"},
            trust_env=False,
            timeout=30,
        )

    @property
    def environment(self) -> dict[str, str]:
        """Leads a live run here."""
        return {
            "FLY_API_TOKEN": self.emulator.token,
            "FLY_FLAPS_BASE_URL": self.emulator.api_url,
            "FLY_EMULATOR_PROXY_URL": self.emulator.proxy_url,
        }

    def requests(self) -> list[Request]:
        """Every request so far, oldest first."""
        lines = self._control.get("/requests").text.splitlines()
        entries = [json.loads(line) for line in lines]
        return [
            Request(
                e["method"], e["path"], e["status"], datetime.fromisoformat(e["time"]).timestamp()
            )
            for e in entries
        ]

    def forget_requests(self) -> None:
        self._control.delete("/requests")

    def count(self, kind: str) -> int:
        return sum(request.kind == kind for request in self.requests())

    def fault(self, spec: str) -> int:
        """Put a fault in force; its id."""
        answer = self._control.post("/faults", json={"spec": spec})
        assert answer.status_code == 201, answer.text
        return int(answer.json()["id"])

    def spent(self, fault_id: int) -> bool:
        """End a fault; whether it struck."""
        faults = self._control.get("/faults").json()
        self._control.delete(f"/faults/{fault_id}")
        return any(fault["hits"] for fault in faults if fault["id"] == fault_id)

    def hits(self) -> list[int]:
        """How often each fault struck, in the order of their making."""
        return [fault["hits"] for fault in self._control.get("/faults").json()]

    def clear_faults(self) -> None:
        self._control.delete("/faults")

    def machines(self, app: str = APP) -> list[Machine]:
        """Ours that are alive."""
        return [
            m
            for m in self.client.list_machines(app)
            if m.state not in ("destroying", "destroyed")
            and any(key.startswith("pytest_flymachines_") for key in m.metadata)
        ]

    def volumes(self, app: str = APP) -> list[Volume]:
        """Ours that are alive."""
        return [v for v in self.client.list_volumes(app) if volume_ttl_s(v.name) is not None]

    def close(self) -> None:
        self.client.close()
        self._control.close()


@contextmanager
def cloud(*extra: str, engine: str = "process", latency_ms: float = 0) -> Iterator[Cloud]:
    """An emulator of the test's own; `process` is the engine that starts fastest."""
    with launch(engine=engine, apps=[APP], latency_ms=latency_ms, extra=extra) as emulator:
        found = Cloud(emulator)
        try:
            yield found
        finally:
            found.close()


@dataclass
class Ended:
    """A run that has ended."""

    code: int
    output: str

    def has(self, *texts: str) -> None:
        for text in texts:
            assert text in self.output, f"{text!r} is not in:\n{self.output}"


class Project:
    """A directory with tests, in which pytest is run, with no more plugins than are named."""

    def __init__(self, path: Path, tests: str, conftest: str = "") -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        (path / "test_it.py").write_text(tests)
        (path / "pytest.ini").write_text("[pytest]\n")
        if conftest:
            (path / "conftest.py").write_text(conftest)

    def arguments(
        self, *args: str, plugins: Sequence[str] = ("xdist",), mode: str = "live"
    ) -> list[str]:
        named = [f"-p{name}" for name in ("flymachines", *plugins)]
        return [*named, "-pno:cacheprovider", "-ra", f"--fly-mode={mode}", *args]

    def environment(self, env: Mapping[str, str] | None = None) -> dict[str, str]:
        temp = self.path / "tmp"
        temp.mkdir(exist_ok=True)
        alone = {"TMPDIR": str(temp), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        return {**os.environ, **alone, **(env or {})}

    def command(self, *args: str, **how: Any) -> list[str]:
        return [sys.executable, "-m", "pytest", *self.arguments(*args, **how)]

    def start(
        self, *args: str, env: Mapping[str, str] | None = None, **how: Any
    ) -> subprocess.Popen[str]:
        return self.popen(self.command(*args, **how), env)

    def popen(
        self, command: Sequence[str], env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*DIES_WITH_US, *command],
            cwd=self.path,
            env=self.environment(env),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *args: str, env: Mapping[str, str] | None = None, **how: Any) -> Ended:
        return end(self.start(*args, env=env, **how))


def end(process: subprocess.Popen[str], timeout_s: float = 120) -> Ended:
    """Wait for the end of a run; one that hangs is killed, and that is an error."""
    try:
        output, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        raise AssertionError(f"still running after {timeout_s} s:\n{output}") from None
    return Ended(process.returncode, output)


def until(condition: Callable[[], Any], seconds: float = 60, *, every_s: float = 0.05) -> bool:
    """Wait for a condition; false if it did not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every_s)
    return True
