"""Terminals of a cook-agent that is not ours, with the verbs of any other terminal."""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Mapping
from contextlib import suppress

from pytest_flymachines.agent.terminal import CookTerminal, FrameSocket
from pytest_flymachines.errors import AgentUnavailable, FlyMachinesError
from pytest_flymachines.sandbox.channel import ProcessUpdate
from pytest_flymachines.sandbox.exec import ExecVerbs
from pytest_flymachines.sandbox.ports import PortVerbs
from pytest_flymachines.sandbox.terminal import Terminal, check_size
from pytest_flymachines.sandbox.text import (
    CommandLine,
    PathArg,
    argv_of,
    check_env,
    decode_name,
    encode_path,
)

__all__ = ["CookVerbs"]

COOK_PORT = 7422
_ATTEMPTS = 20
_MARK = "PYTEST_FLYMACHINES_TERMINAL"
# The protocol has no word for ending a session, so its processes are found by a variable.
_KILL = f"""
for p in /proc/[0-9]*; do
    tr '\\0' '\\n' <"$p/environ" | grep -qxF "{_MARK}=$1" && kill -KILL "${{p#/proc/}}"
done 2>/dev/null
:
"""


class _CookChannel:
    """What a `Terminal` asks of a channel, over one session's connection."""

    def __init__(self, session: CookTerminal, handle: CookVerbs) -> None:
        self._session = session
        self._handle = handle
        self._output = bytearray()

    def poll(
        self,
        process: str,
        *,
        stdout: int,
        stderr: int,  # noqa: ARG002 - a terminal has none
        wait_s: float,
        forget: bool = False,  # noqa: ARG002 - nothing is kept
    ) -> ProcessUpdate:
        session = self._session
        if not session.ended:
            self._output += session.read(wait_s)
        code = session.exit_code
        return ProcessUpdate(
            id=process,
            running=not session.ended,
            # a session that ends without telling its code was killed
            exit_code=(137 if code is None else code) if session.ended else None,
            stdout=bytes(self._output[stdout:]),
            stdout_size=len(self._output),
        )

    def write_stdin(self, process: str, data: bytes, *, eof: bool) -> None:
        if self._session.ended:
            raise BrokenPipeError(32, f"terminal {process} has ended")
        self._session.write(data + b"\x04" if eof else data)

    def resize(self, process: str, rows: int, cols: int) -> None:  # noqa: ARG002 - there is one
        self._session.resize(rows, cols)

    def forget(self, process: str) -> None:
        try:
            if not self._session.ended:
                self._handle.exec(["/bin/sh", "-c", _KILL, "sh", process], cwd="/")
        finally:
            self._session.close()


class CookVerbs(PortVerbs, ExecVerbs):
    """What only a foreign cook-agent (`--fly-agent=PATH`, or one in the image) can do."""

    def cook_terminal(
        self,
        command: CommandLine = "/bin/sh",
        *,
        rows: int = 24,
        cols: int = 80,
        cwd: PathArg | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Terminal:
        """Start a program on a terminal of the cook-agent on port 7422, over its WebSocket.

        Use `terminal` unless that agent is what you test: it keeps no output for a connection
        that was lost, and knows no exit code by itself.

        Args:
            command: A `str` for the agent's `/bin/sh -c`, or an argv.
            rows: Height, 1 to 1000.
            cols: Width, 1 to 1000.
            cwd: Directory to run in, relative to the workspace; default the workspace.
            env: Variables set beside those of the agent.

        Raises:
            AgentUnavailable: Nothing answers there.
            FlyMachinesError: The agent refuses; or there is no way to the machine's ports.
        """
        check_size(rows, cols)
        words = _words(command)
        shell = command if isinstance(command, str) else shlex.join(words)
        at = self.attachment
        directory = posixpath.join(
            at.workdir, decode_name(encode_path("." if cwd is None else cwd))
        )
        session = self._session(shell, check_env(env), posixpath.normpath(directory), rows, cols)
        channel = _CookChannel(session, self)
        first = ProcessUpdate(id=session.session, running=True)
        terminal = Terminal(channel, self._clock, first, command, at.machine_id, (rows, cols))
        self.started.append(terminal)
        return terminal

    def _session(
        self, command: str, env: Mapping[str, str], directory: str, rows: int, cols: int
    ) -> CookTerminal:
        """A new session; its name is the next that the agent has not got."""
        session = CookTerminal(self._connect(), "", self._clock)
        try:
            taken = session.sessions()
            for number in range(1, len(taken) + _ATTEMPTS):
                session.session = f"fly-{number}"
                if session.session in taken:
                    continue
                pairs = [f"{k}={v}" for k, v in {_MARK: session.session, **env}.items()]
                marked = shlex.join(["exec", "env", "--", *pairs, "/bin/sh", "-c", command])
                # another process may have taken the name meanwhile
                with suppress(_NameTaken):
                    _create(session, marked, directory, rows, cols)
                    return session
        except BaseException:
            session.close()
            raise
        session.close()
        raise FlyMachinesError(
            f"cook-agent on machine {self.attachment.machine_id} refused {_ATTEMPTS} names for a "
            "terminal that it did not list"
        )

    def _connect(self) -> FrameSocket:
        def connect() -> FrameSocket:
            from pytest_flymachines.agent.websocket import TextSocket, open_websocket

            try:
                return TextSocket(open_websocket(self.url(COOK_PORT), "/", {}))
            except AgentUnavailable as error:
                raise AgentUnavailable(
                    f"no cook-agent answers on port {COOK_PORT} of machine "
                    f"{self.attachment.machine_id} ({error}): name one with --fly-agent=PATH, or "
                    "take an image that has one; terminal() needs none"
                ) from error

        frames = self.attachment.frames
        return frames("/", connect) if frames else connect()


class _NameTaken(Exception):
    """The agent has a session of this name."""


def _create(session: CookTerminal, command: str, directory: str, rows: int, cols: int) -> None:
    try:
        session.create(command, workdir=directory, rows=rows, cols=cols)
    except FlyMachinesError as error:
        if "already exists" in str(error):
            raise _NameTaken from error
        raise


def _words(command: CommandLine) -> list[str]:
    return [decode_name(word) for word in argv_of(command)]
