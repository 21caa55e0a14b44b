"""cook-agent's protocol on one WebSocket: JSON messages that steer terminal sessions.

A client that knows nothing of our two extras does not notice them: `scrollback: true` in an
attach shows what the session wrote before, `notify_exit: true` in a create or attach asks for
`{"type": "exit", "session_id", "exit_code"}` when the process has ended.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import select
import threading
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from .log import log
from .sessions import Session, Sessions
from .websocket import WebSocket

# Output that waits for this client, above which the session's process has to wait too.
HIGH_WATER_BYTES = 1 << 20
# Input that waits for the process, above which nothing more is read from this client.
INPUT_BYTES = 1 << 20
# A client that takes nothing for so long holds up the others no longer.
STUCK_S = 10.0
RECHECK_MS = 50
IDLE_MS = 5000

_FIELDS: dict[str, type | tuple[type, ...]] = {
    "type": str,
    "session_id": str,
    "command": str,
    "workdir": str,
    "data": str,
    "rows": (int, float),
    "cols": (int, float),
    "scrollback": bool,
    "notify_exit": bool,
}


class Terminals:
    """One client; `run` serves it to its end in the calling thread."""

    def __init__(self, websocket: WebSocket, sessions: Sessions) -> None:
        self._websocket = websocket
        self._sessions = sessions
        self._session: Session | None = None
        self._notify_exit = False
        self._input_waits = False
        # filled by whichever thread has output, emptied by ours
        self._shown: deque[dict[str, Any]] = deque()
        self._lock = threading.Lock()
        self._waiting = 0
        self._paused = False
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def show(self, session: str, data: bytes) -> bool:
        """See `Viewer`."""
        text = base64.b64encode(data).decode()
        self._tell({"type": "output", "session_id": session, "data": text})
        with self._lock:
            self._waiting += len(text)
            self._paused = self._paused or self._waiting > HIGH_WATER_BYTES
            return not self._paused

    def ended(self, session: str, exit_code: int) -> None:
        """See `Viewer`."""
        if self._notify_exit:
            self._tell({"type": "exit", "session_id": session, "exit_code": exit_code})

    def _tell(self, message: dict[str, Any]) -> None:
        self._shown.append(message)
        os.eventfd_write(self._wake, 1)

    def run(self) -> None:
        """Serve until the connection ends; sessions go on."""
        progress = time.monotonic()
        try:
            self._handle_all(self._websocket.messages())
            while not self._websocket.closed or self._websocket.outgoing:
                for fd, events in self._poll():
                    if fd == self._wake:
                        with suppress(BlockingIOError):
                            os.eventfd_read(self._wake)
                        continue
                    if events & select.POLLOUT and self._websocket.flush():
                        progress = time.monotonic()
                    if events & ~select.POLLOUT:
                        self._handle_all(self._websocket.receive())
                self._send_shown()
                if not self._websocket.outgoing:
                    progress = time.monotonic()
                elif time.monotonic() - progress > STUCK_S:
                    log(f"a terminal's client took nothing for {STUCK_S:g} s: disconnected")
                    return
        except OSError:
            pass  # the client has gone
        finally:
            self._leave()
            os.close(self._wake)

    def _poll(self) -> list[tuple[int, int]]:
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        wanted = select.POLLOUT if self._websocket.outgoing else 0
        if self._input_waits:
            self._input_waits = bool(self._session and self._session.write(b"") > INPUT_BYTES)
        if not self._input_waits and not self._websocket.closed:
            wanted |= select.POLLIN
        poll.register(self._websocket.sock, wanted)
        return poll.poll(RECHECK_MS if self._input_waits else IDLE_MS)

    def _send_shown(self) -> None:
        """Move output into the socket's buffer while that is short."""
        while self._shown and len(self._websocket.outgoing) < HIGH_WATER_BYTES // 4:
            message = self._shown.popleft()
            with self._lock:
                self._waiting -= len(message.get("data", ""))
            self._send(message)
        if self._websocket.outgoing:
            self._websocket.flush()
        with self._lock:
            resume = self._paused and self._waiting < HIGH_WATER_BYTES // 2
            self._paused = self._paused and not resume
        if resume and self._session:
            self._session.process.resume_output()

    def _send(self, message: dict[str, Any]) -> None:
        self._websocket.send(json.dumps(message))

    def _handle_all(self, messages: Iterable[str | bytes]) -> None:
        for message in messages:
            try:
                self._handle(json.loads(message))
            except ValueError as error:
                log(f"a terminal's message was ignored: {error}")

    def _handle(self, request: Any) -> None:
        if not isinstance(request, dict):
            raise ValueError("it is no JSON object")
        for name, kind in _FIELDS.items():
            if request.get(name) is not None and not isinstance(request[name], kind):
                raise ValueError(f"its {name} is a {type(request[name]).__name__}")
        name = request.get("session_id") or ""
        match request.get("type"):
            case "create":
                self._create(name, request)
            case "attach":
                self._attach(name, request)
            case "detach":
                self._leave()
                self._send({"type": "ok"})
            case "input":
                self._input(name, request.get("data") or "")
            case "resize":
                if (session := self._sessions.get(name)) and (size := _size(request)):
                    session.process.resize(*size)
            case "list":
                names = self._sessions.names()
                self._send({"type": "list", "sessions": names} if names else {"type": "list"})
            case other:
                raise ValueError(f"its type {other!r} is unknown")

    def _create(self, name: str, request: dict[str, Any]) -> None:
        notified = self._notify_exit
        self._notify_exit = bool(request.get("notify_exit"))
        made = self._sessions.create(
            name,
            request.get("command") or "",
            request.get("workdir") or "",
            _size(request) or (24, 80),
            self,
        )
        if isinstance(made, str):
            self._notify_exit = notified
            self._send({"type": "error", "error": made})
            return
        if self._session is not made:
            self._leave()
        self._session = made
        self._send({"type": "ok", "session_id": name})

    def _attach(self, name: str, request: dict[str, Any]) -> None:
        session = self._sessions.get(name)
        if session is None:
            self._send({"type": "error", "error": "session not found"})
            return
        self._leave()
        self._session = session
        self._notify_exit = bool(request.get("notify_exit"))
        session.attach(self, scrollback=bool(request.get("scrollback")))
        self._send({"type": "ok", "session_id": name})

    def _input(self, name: str, data: str) -> None:
        if session := self._sessions.get(name):
            try:
                decoded = base64.b64decode(data, validate=True)
            except binascii.Error as error:
                raise ValueError(f"its data is no base64: {error}") from error
            if session.write(decoded) > INPUT_BYTES and session is self._session:
                self._input_waits = True

    def _leave(self) -> None:
        if self._session:
            self._session.detach(self)
            self._session = None


def _size(request: dict[str, Any]) -> tuple[int, int] | None:
    """Rows and columns, if both are positive."""
    rows, cols = (min(int(request.get(name) or 0), 65535) for name in ("rows", "cols"))
    return (rows, cols) if rows > 0 and cols > 0 else None
