"""The real agent, as the zipapp that is delivered, in a process of its own."""

from __future__ import annotations

import hashlib
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from pytest_flymachines._clock import SystemClock
from pytest_flymachines._http import PoolTransport
from pytest_flymachines.agent.bundle import build
from pytest_flymachines.agent.channel import AgentChannel

TOKEN = "a-token-of-the-tests"
PREFIX = "/v1/apps/app/machines/m1"


@dataclass
class RunningAgent:
    """An agent that listens, and where its things are."""

    process: subprocess.Popen[bytes]
    port: int
    directory: Path
    token: str | None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def base(self) -> Path:
        return self.directory / "base"

    @property
    def state(self) -> Path:
        return self.directory / "state"

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"} if self.token else {}

    def log(self) -> str:
        return (self.directory / "log").read_text()

    def http(self) -> httpx.Client:
        """A client that nobody here wrote."""
        return httpx.Client(base_url=self.url + PREFIX, headers=self.headers, timeout=30)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def threads(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/task").iterdir()))

    def children(self) -> dict[int, str]:
        """Direct children and their states; `Z` is a zombie."""
        found = {}
        for directory in Path("/proc").glob("[0-9]*"):
            try:
                fields = (directory / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == self.process.pid:
                found[int(directory.name)] = fields[0]
        return found


@contextmanager
def running_agent(
    directory: Path,
    *,
    python: str = sys.executable,
    token: str | None = TOKEN,
    user: str | None = None,
    listen: str = "127.0.0.1:0",
    options: Sequence[str] = (),
    state: Path | None = None,
) -> Iterator[RunningAgent]:
    """Start the agent in `directory`, and end it."""
    archive = directory / "agent.pyz"
    archive.write_bytes(build(compiled=True))
    argv = [python, "-IS", str(archive), "-listen", listen]
    argv += ["--base", str(directory / "base"), "--state", str(state or directory / "state")]
    if token:
        digest = directory / "token.sha256"
        digest.write_text(hashlib.sha256(token.encode()).hexdigest() + "\n")
        argv += ["--token-sha256-file", str(digest)]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [*argv, *options], stderr=log, stdin=subprocess.DEVNULL, cwd=directory, user=user
        )
    try:
        yield RunningAgent(process, _port(process, directory / "log"), directory, token)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(r"listening on \S+:(\d+)\n", log.read_text()):
            return int(found[1])
        time.sleep(0.005)
    raise AssertionError(f"the agent did not come up: {log.read_text()}")


@contextmanager
def open_channel(agent: RunningAgent, **options: object) -> Iterator[AgentChannel]:
    """A channel to a running agent."""
    arguments = {"token": agent.token, "base_url": agent.url, "clock": SystemClock()} | options
    with closing(PoolTransport()) as transport:
        yield AgentChannel(transport, app="app", machine_id="m1", **arguments)  # type: ignore[arg-type]


def eventually(condition: object, *, timeout_s: float = 20.0) -> None:
    """Wait until a function gives something true."""
    assert callable(condition)
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.01)
