"""An exec in a container."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from docker.utils.socket import frames_iter

from pytest_flymachines.emulator.engines.base import ExecOutcome
from pytest_flymachines.emulator.engines.docker_program import close
from pytest_flymachines.emulator.engines.output import LIMIT_BYTES

__all__ = ["DockerExec", "unexecutable"]

_KILLED = 137
# Podman now and then loses what a program writes before somebody listens: so it waits for a line.
_ONCE_ATTACHED = ("/bin/sh", "-c", 'read -r _; exec "$@"', "sh")
_REFUSED_PROGRAM = b"OCI runtime exec failed"


class DockerExec:
    """One such, as root in `/`.

    Args:
        api: The daemon's client.
        container: Id.
        argv: Its program.
        stdin: Given to it.
        env: On top of the container's.
        podman: The daemon is podman's.
    """

    def __init__(
        self,
        api: Any,
        container: str,
        argv: Sequence[str],
        stdin: bytes,
        env: Mapping[str, str],
        *,
        podman: bool,
    ) -> None:
        self._api = api
        self._container = container
        self._argv = [*_ONCE_ATTACHED, *argv] if podman else list(argv)
        self._stdin = b"\n" + stdin if podman else stdin
        self._env = dict(env)
        # Of stdout (1) and stderr (2), each up to the limit.
        self._pieces: dict[int, list[bytes]] = {1: [], 2: []}
        self._room = {1: LIMIT_BYTES, 2: LIMIT_BYTES}

    def run(self) -> ExecOutcome:
        """Run it; blocks until all of its output has come.

        Raises:
            DockerException, OSError: The daemon could not.
        """
        created = self._api.exec_create(
            self._container,
            self._argv,
            stdin=bool(self._stdin),
            environment=self._env,
            workdir="/",
            user="0:0",
        )
        stream = self._api.exec_start(created["Id"], socket=True)
        try:
            if self._stdin:
                threading.Thread(target=_feed, args=(stream, self._stdin), daemon=True).start()
            for number, piece in frames_iter(stream, tty=False):
                self._add(number, piece)
        finally:
            close(stream)
        state = self._api.exec_inspect(created["Id"])
        code = int(state["ExitCode"] if state["ExitCode"] is not None else _KILLED)
        stdout, stderr = self._content(1), self._content(2)
        if code in {126, 127} and stdout.startswith(_REFUSED_PROGRAM):
            code = unexecutable(stdout.decode(errors="replace")) or code
            stdout, stderr = b"", stdout
        return ExecOutcome(exit_code=code, stdout=stdout, stderr=stderr)

    def so_far(self) -> ExecOutcome:
        """What is to be said of it when its time is over."""
        return ExecOutcome(timed_out=True, stdout=self._content(1), stderr=self._content(2))

    def _add(self, number: int, piece: bytes) -> None:
        if self._room[number] > 0:
            self._pieces[number].append(piece[: self._room[number]])
            self._room[number] -= len(piece)

    def _content(self, number: int) -> bytes:
        return b"".join(self._pieces[number])


def unexecutable(message: str) -> int | None:
    """Exit code for a program that could not be executed; None if something else is wrong."""
    if "executable file not found" in message or "no such file or directory" in message:
        return 127
    return 126 if "permission denied" in message or "exec format error" in message else None


def _feed(stream: Any, content: bytes) -> None:
    sock = getattr(stream, "_sock", stream)
    with contextlib.suppress(OSError):
        sock.sendall(content)
        sock.shutdown(socket.SHUT_WR)
