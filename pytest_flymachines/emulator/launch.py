"""Start an emulator as a process of its own; imports nothing but the standard library."""

from __future__ import annotations

import json
import os
import secrets
import select
import site
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import IO, Self
from urllib.parse import urlsplit

__all__ = ["EmulatorProcess", "LaunchError", "launch"]

LOG_TAIL = 8000
STOP_S = 15.0
#: A real token has no business in a process that never talks to Fly.
TOKEN_VARIABLES = ("FLY_API_TOKEN", "FLY_ACCESS_TOKEN", "FLY_TOKEN")


class LaunchError(RuntimeError):
    """The emulator did not come up; the text has its log."""


@dataclass(frozen=True)
class EmulatorProcess:
    """An emulator that is ready.

    Attributes:
        api_url: Base of the Machines API.
        proxy_url: The HTTP proxy in front of the machines' services.
        control_url: The control interface.
        token: For the API and for control.
        pid: Its process.
        engine: What runs the machines.
        notes: What a user should know of this engine.
    """

    api_url: str
    proxy_url: str
    control_url: str
    token: str = field(repr=False)
    pid: int
    engine: str
    notes: tuple[str, ...]
    _process: subprocess.Popen[bytes] = field(repr=False, compare=False)

    def stop(self) -> None:
        """End it with all its machines; harmless when it has ended."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def disown(self) -> None:
        """Let it live on without its owner, until its last machine is gone.

        Raises:
            OSError: It does not answer.
        """
        address = urlsplit(self.control_url)
        connection = HTTPConnection(str(address.hostname), address.port, timeout=STOP_S)
        try:
            headers = {"authorization": f"Bearer {self.token}"}
            connection.request("POST", "/disown", headers=headers)
            answer = connection.getresponse()
            if answer.status >= 300:
                raise OSError(f"POST /disown answered {answer.status}: {answer.read()!r}")
        finally:
            connection.close()
        # its end is not ours to wait for, so that nobody is warned that it still runs
        self._process.returncode = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def launch(
    *,
    engine: str = "auto",
    apps: Sequence[str] = (),
    owner_pid: int | None = None,
    rate_limits: bool = False,
    latency_ms: float = 0,
    state: Path | str | None = None,
    log: Path | str | None = None,
    token: str | None = None,
    timeout_s: float = 30,
    extra: Sequence[str] = (),
) -> EmulatorProcess:
    """Start an emulator and wait until it is ready.

    Args:
        engine: auto, bubblewrap, docker or process.
        apps: Names of apps that exist from the start.
        owner_pid: It ends when this process ends; None means the calling process.
        rate_limits: Answer 429 as Fly does.
        latency_ms: Added to every answer of the API.
        state: Directory for apps, machines and volumes that outlive it.
        log: File to which its request log is appended.
        token: The token it asks for; None makes one.
        timeout_s: How long to wait for it to be ready.
        extra: More arguments for its command line.

    Raises:
        LaunchError: It did not come up in time, or ended.
    """
    arguments = ["--engine", engine, "--rate-limits", "on" if rate_limits else "off"]
    arguments += ["--owner-pid", str(owner_pid or os.getpid()), "--latency", str(latency_ms)]
    for name in apps:
        arguments += ["--app", name]
    if state is not None:
        arguments += ["--state", str(state)]
    if log is not None:
        arguments += ["--log", str(log)]
    ready_out, ready_in = os.pipe()
    with tempfile.TemporaryFile() as output, os.fdopen(ready_out, "rb", buffering=0) as ready:
        try:
            process = subprocess.Popen(
                [*_program(), *arguments, "--ready-fd", str(ready_in), *extra],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=_environment(token),
                pass_fds=(ready_in,),
                start_new_session=True,
            )
        finally:
            os.close(ready_in)
        line = _ready_line(ready, timeout_s)
        if not line:
            why = _give_up(process, output, timeout_s)
            raise LaunchError(why)
    about = json.loads(line)
    return EmulatorProcess(**about | {"notes": tuple(about["notes"])}, _process=process)


def _program() -> list[str]:
    # -P: a module of the current directory must not stand in for one of the standard library.
    return [sys.executable, "-P", "-m", "pytest_flymachines.emulator"]


def _environment(token: str | None) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if name not in TOKEN_VARIABLES}
    # glibc would take the memory of each piece of a large body from the kernel, and give it back
    environment |= {f"MALLOC_{name}_THRESHOLD_": str(1 << 20) for name in ("MMAP", "TRIM")}
    environment["FLY_API_TOKEN"] = token or f"emu-{secrets.token_hex(16)}"
    home = str(Path(__file__).parents[2])
    if home not in (*site.getsitepackages(), site.getusersitepackages()):
        inherited = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = f"{inherited}{os.pathsep}{home}" if inherited else home
    return environment


def _ready_line(ready: IO[bytes], timeout_s: float) -> bytes:
    """The line, or nothing when the time is over or the process has ended."""
    deadline = time.monotonic() + timeout_s
    line = b""
    while not line.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([ready], [], [], left)[0]:
            return b""
        chunk = ready.read(65536)
        if not chunk:
            return b""
        line += chunk
    return line


def _give_up(process: subprocess.Popen[bytes], output: IO[bytes], timeout_s: float) -> str:
    ended = process.poll()
    if ended is None:
        try:
            ended = process.wait(1)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    how = f"was not ready after {timeout_s:g} s" if ended is None else f"ended with status {ended}"
    output.seek(0)
    said = output.read()[-LOG_TAIL:].decode("utf-8", "replace").strip()
    return f"the emulator {how}; it wrote:\n{said or '(nothing)'}"
