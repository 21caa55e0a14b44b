"""A stand-alone emulator in the place of Fly, and the probe as typed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from pytest_flymachines.api import MachinesClient
from pytest_flymachines.emulator.launch import EmulatorProcess, launch
from pytest_flymachines.errors import NotFound

SCRIPT = [sys.executable, "-c", "from pytest_flymachines.cli import main; main()"]
TOKEN = "emu-SecretTokenOfAStranger"
ORG = "jane-doe-and-sons"


@dataclass(frozen=True)
class Probed:
    """A probe that has ended."""

    code: int
    output: str
    report: Path

    @property
    def data(self) -> dict[str, Any]:
        shown: dict[str, Any] = json.loads(self.report.read_text())
        return shown

    def verdicts(self) -> dict[str, str]:
        return {item["check"]: item["verdict"] for item in self.data["checks"]}

    def named(self, verdict: str) -> list[str]:
        return [name for name, found in self.verdicts().items() if found == verdict]


class Probing:
    """A probe at work."""

    def __init__(self, fly: EmulatorProcess, directory: Path, *args: str, yes: bool = True) -> None:
        self.report = directory / "report.json"
        self.log = directory / "output"
        environ = {k: v for k, v in os.environ.items() if not k.startswith("FLY_")}
        words = [*SCRIPT, "probe", f"--api-url={fly.api_url}", f"--report={self.report}", *args]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*words, *(["--yes"] if yes else [])],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environ | {"FLY_API_TOKEN": fly.token},
            )

    @property
    def app(self) -> str:
        """The app that it said it works in."""
        return self.log.read_text().partition(" in app ")[2].partition(" ")[0]

    def until(self, condition: Callable[[], object]) -> None:
        """Wait for something while the probe runs."""
        deadline = time.monotonic() + 90
        while not condition():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    def end(self, number: int | None = None) -> Probed:
        """Send it a signal, and wait for its end."""
        if number is not None:
            self.process.send_signal(number)
        code = self.process.wait(200)
        return Probed(code, self.log.read_text(), self.report)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


@contextmanager
def fly() -> Iterator[EmulatorProcess]:
    """An emulator in the place of a stranger's Fly."""
    extra = ("--org", ORG)
    with launch(engine="bubblewrap", rate_limits=True, token=TOKEN, extra=extra) as emulator:
        yield emulator


def client(emulator: EmulatorProcess) -> MachinesClient:
    return MachinesClient(emulator.token, base_url=emulator.api_url, pace=False)


def arm(emulator: EmulatorProcess, fault: str) -> None:
    """Have the emulator do something wrong."""
    headers = {"authorization": f"Bearer {emulator.token}"}
    url = f"{emulator.control_url}/faults"
    httpx.post(url, json={"spec": fault}, headers=headers, trust_env=False).raise_for_status()


def made(emulator: EmulatorProcess, app: str) -> list[str]:
    """The app if there is one, its machines and its volumes."""
    with client(emulator) as api:
        try:
            found = [machine.id for machine in api.list_machines(app)]
            return [app, *found, *(volume.id for volume in api.list_volumes(app))]
        except NotFound:
            return []
