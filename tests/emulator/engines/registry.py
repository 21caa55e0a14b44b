"""A private image registry of our own on loopback, for tests."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

USER, PASSWORD = "tester", "open sesame"
# The password with bcrypt, at its lowest cost.
_HTPASSWD = f"{USER}:$2b$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW\n"
_CONFIG = """
version: 0.1
storage: {{filesystem: {{rootdirectory: {directory}/images}}}}
http: {{addr: "127.0.0.1:{port}"}}
auth: {{htpasswd: {{realm: test, path: {directory}/htpasswd}}}}
"""


@dataclass(frozen=True)
class Registry:
    """One that runs."""

    host: str


def missing() -> str | None:
    """Why no registry can be run here, or None."""
    if shutil.which("docker-registry") is None:
        return "no docker-registry (Debian: package docker-registry)"
    return None


@contextlib.contextmanager
def serve(directory: Path) -> Iterator[Registry]:
    """Run one that asks for `USER` and `PASSWORD`; ended afterwards."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (directory / "htpasswd").write_text(_HTPASSWD)
    (directory / "config.yml").write_text(_CONFIG.format(directory=directory, port=port))
    # ends with us, also when we are killed
    command = ["setpriv", "--pdeathsig", "TERM", "--"]
    command += ["docker-registry", "serve", str(directory / "config.yml")]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait(port, process, directory / "log")
        yield Registry(f"127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(30)


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
            return
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
