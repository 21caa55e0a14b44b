"""Terminals of a cook-agent that is not ours, over its WebSocket protocol.

The protocol is that of https://github.com/justinmoon/cook (`cmd/cook-agent`). It sends no exit
code, so the command is wrapped in a shell that writes a marker with it at the end.
"""

from __future__ import annotations

import base64
import json
import re
from collections import deque
from typing import Any, Protocol

from pytest_flymachines._clock import Clock
from pytest_flymachines.errors import AgentUnavailable, FlyMachinesError

__all__ = ["CookTerminal", "FrameSocket"]

ANSWER_TIMEOUT_S = 30.0
# Once the shell has ended nothing more is written, but frames may still be under way.
DRAIN_S = 0.2

# U+001E, the record separator, is written by next to no program.
_MARKER = re.compile(rb"\x1ecook-exit:(\d+)\x1e")
_MARKER_START = re.compile(rb"\x1e(c(o(o(k(-(e(x(i(t(:(\d+)?)?)?)?)?)?)?)?)?)?)?\Z")


class FrameSocket(Protocol):
    """A WebSocket of text frames; `agent.websocket.TextSocket` is one."""

    def send(self, text: str) -> None:
        """Send one frame."""
        ...

    def receive(self, timeout_s: float) -> str | None:
        """The next frame, None at the end; raises TimeoutError."""
        ...

    def close(self) -> None:
        """End the connection."""
        ...


class CookTerminal:
    """One terminal session on a connection of its own. For one thread at a time.

    Attributes:
        session: Its name, unique in the machine.
        exit_code: Exit code of the command, once `read` has come to its end; None before, and
            for a session whose shell was killed.
        ended: The command has ended.
    """

    def __init__(self, frames: FrameSocket, session: str, clock: Clock) -> None:
        self.session = session
        self.exit_code: int | None = None
        self.ended = False
        self._frames = frames
        self._clock = clock
        self._outputs: deque[bytes] = deque()
        self._held = b""

    def create(self, command: str, *, workdir: str = "", rows: int = 24, cols: int = 80) -> None:
        """Run a shell command on a new terminal.

        Raises:
            FlyMachinesError: The agent refuses; its words are in the message.
        """
        # the newline ends a comment or here-document; the subshell keeps `exit` from the marker
        wrapped = f"(\n{command}\n); printf '\\036cook-exit:%d\\036' $?"
        self._ask(
            {
                "type": "create",
                "session_id": self.session,
                "command": wrapped,
                "workdir": workdir,
                "rows": rows,
                "cols": cols,
            }
        )

    def attach(self) -> None:
        """Show what a session that runs already writes from now on.

        Raises:
            FlyMachinesError: There is no such session.
        """
        self._ask({"type": "attach", "session_id": self.session})

    def detach(self) -> None:
        """Show nothing more; the session runs on."""
        self._ask({"type": "detach"})

    def write(self, data: bytes) -> None:
        """Type into the terminal."""
        text = base64.b64encode(data).decode()
        self._send({"type": "input", "session_id": self.session, "data": text})

    def resize(self, rows: int, cols: int) -> None:
        """Set the terminal's size."""
        self._send({"type": "resize", "session_id": self.session, "rows": rows, "cols": cols})

    def sessions(self) -> list[str]:
        """Names of all sessions of the agent, sorted."""
        return sorted(self._ask({"type": "list"}).get("sessions") or [])

    def running(self) -> bool:
        """Whether the agent still knows the session."""
        if not self.ended and self.session not in self.sessions():
            self.ended = True
        return not self.ended

    def read(self, timeout_s: float) -> bytes:
        """The next output; empty when there was none in time, or at the end (see `ended`).

        Raises:
            AgentUnavailable: The connection is gone.
        """
        deadline = self._clock.monotonic() + timeout_s
        while True:
            if self._outputs and (data := self._without_marker(self._outputs.popleft())):
                return data
            left = deadline - self._clock.monotonic()
            if self.ended and not self._outputs:
                rest, self._held = self._held, b""
                return rest
            if self._outputs:
                continue
            if left <= 0 or not self._receive(left):
                if self.running():
                    return b""
                self._drain()

    def close(self) -> None:
        """Close the connection; the session runs on."""
        self._frames.close()

    def _without_marker(self, data: bytes) -> bytes:
        data, self._held = self._held + data, b""
        if match := _MARKER.search(data):
            self.exit_code = int(match[1])
            self.ended = True
            return data[: match.start()] + data[match.end() :]
        if partial := _MARKER_START.search(data):
            self._held = data[partial.start() :]
            data = data[: partial.start()]
        return data

    def _drain(self) -> None:
        while self._receive(DRAIN_S):
            pass

    def _send(self, message: dict[str, Any]) -> None:
        self._frames.send(json.dumps(message))

    def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Send and wait for the answer, keeping the output that comes before it."""
        self._send(message)
        deadline = self._clock.monotonic() + ANSWER_TIMEOUT_S
        while True:
            try:
                answer = self._next(max(0.0, deadline - self._clock.monotonic()))
            except TimeoutError as error:
                raise AgentUnavailable(
                    f"cook-agent did not answer {message['type']} for {ANSWER_TIMEOUT_S:g} s"
                ) from error
            if answer.get("type") == "error":
                raise FlyMachinesError(
                    f"cook-agent refused {message['type']} of terminal {self.session!r}: "
                    f"{answer.get('error')}"
                )
            if answer.get("type") in ("ok", "list"):
                return answer

    def _receive(self, timeout_s: float) -> bool:
        """Take one frame; false when there was none in time."""
        try:
            self._next(timeout_s)
        except TimeoutError:
            return False
        return True

    def _next(self, timeout_s: float) -> dict[str, Any]:
        text = self._frames.receive(timeout_s)
        if text is None:
            raise AgentUnavailable("cook-agent has closed the terminal's connection")
        message: dict[str, Any] = json.loads(text)
        if message.get("type") == "output" and message.get("session_id") == self.session:
            self._outputs.append(base64.b64decode(message.get("data") or ""))
        return message
