"""A further main process of a container: an exec that lives as long as the container."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from docker.errors import APIError, DockerException
from docker.utils.socket import frames_iter

from pytest_flymachines.emulator.engines.base import Program
from pytest_flymachines.emulator.engines.supervisor.tail import Tail, open_log

__all__ = ["DockerProgram", "close"]

_KILLED = 137


class DockerProgram:
    """One such process; the image must have a shell.

    Args:
        api: The daemon's client.
        container: Id.
        log: Gets its output.
    """

    def __init__(self, api: Any, container: str, log: Path) -> None:
        self._api = api
        self._container = container
        self._log = log
        self._pid = 0
        self._known = threading.Event()

    def start(self, program: Program, unset: Iterable[str], *, tty: bool) -> None:
        """Execute it; blocks until it was.

        Args:
            program: With its whole argv.
            unset: Variables of the container that are not its own.
            tty: Give it a terminal.
        """
        # Its pid in the container, which is what signals need; the daemon tells another.
        script = 'echo "$$"; ' + "".join(f"unset {name}; " for name in unset) + 'exec "$@"'
        created = self._api.exec_create(
            self._container,
            ["/bin/sh", "-c", script, "sh", *(program.argv or ())],
            tty=tty,
            environment=dict(program.env),
            user=program.user or "",
        )
        self._id, self._tty = created["Id"], tty
        self._stream = self._api.exec_start(self._id, tty=tty, socket=True)

    def follow(self) -> int:
        """Copy its output to the log until it has ended; its exit code."""
        head = b""
        fd = open_log(self._log)
        log = Tail(fd)
        with contextlib.suppress(OSError):
            for _, piece in frames_iter(self._stream, tty=self._tty):
                if self._known.is_set():
                    log.write(piece)
                    continue
                head += piece
                line, newline, rest = head.partition(b"\n")
                if newline and line.strip().isdigit():
                    self._pid = int(line)
                    self._known.set()
                    log.write(rest)
        if not self._known.is_set():  # The daemon's text about a shell that is not there.
            self._known.set()
            log.write(head)
        os.close(fd)
        close(self._stream)
        try:
            code = self._api.exec_inspect(self._id)["ExitCode"]
        except (DockerException, OSError):
            return _KILLED  # The container was removed.
        return int(code) if code is not None else _KILLED

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._known.wait()
        if self._pid:
            argv = ["/bin/sh", "-c", f"kill -{number} {self._pid}"]
            with contextlib.suppress(APIError):
                created = self._api.exec_create(self._container, argv, user="0:0")
                self._api.exec_start(created["Id"])


def close(stream: Any) -> None:
    """Close a stream of the SDK by its response: its own `close` leaves the connection open."""
    with contextlib.suppress(OSError, ValueError):
        stream._response.close()  # noqa: SLF001 (there is no public way to it)
