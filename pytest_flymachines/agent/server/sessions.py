"""cook-agent's terminal sessions, which live on when their clients go away."""

from __future__ import annotations

import threading
from typing import Protocol

from .paths import Paths
from .processes import Processes
from .spawn import Program
from .users import environment
from .wire import BadRequest

FRAME_BYTES = 4096
SCROLLBACK_BYTES = 256 * 1024


class Viewer(Protocol):
    """Whoever watches a session. Both are called with the process's lock held."""

    def show(self, session: str, data: bytes) -> bool:
        """Take output, of at most 4096 bytes; false asks for a pause."""
        ...

    def ended(self, session: str, exit_code: int) -> None:
        """The process has ended."""
        ...


class Session:
    """A command on a terminal; the output of its process."""

    def __init__(self, name: str, processes: Processes) -> None:
        self.name = name
        self.process = processes.prepare(self)
        self._viewers: set[Viewer] = set()
        self._scrollback = bytearray()

    def append(self, data: bytes) -> bool:
        """Show output to everybody, and keep the end of it."""
        self._scrollback += data
        del self._scrollback[:-SCROLLBACK_BYTES]
        room = True
        for viewer in list(self._viewers):
            room = _show(viewer, self.name, data) and room
        return room

    def attach(self, viewer: Viewer, *, scrollback: bool) -> None:
        """Show output to this viewer from now on; with `scrollback` also what was before."""
        with self.process.changed:
            if scrollback:
                _show(viewer, self.name, bytes(self._scrollback))
            self._viewers.add(viewer)

    def tell_end(self) -> None:
        """Tell everybody that the process has ended."""
        for viewer in list(self._viewers):
            viewer.ended(self.name, self.process.exit_code or 0)

    def detach(self, viewer: Viewer) -> None:
        """Show nothing more to this viewer, and wait for it no longer."""
        with self.process.changed:
            self._viewers.discard(viewer)
        self.process.resume_output()

    def write(self, data: bytes) -> int:
        """Type into the terminal; how many bytes it has not taken yet."""
        with self.process.changed:
            if not self.process.stdin.broken:
                self.process.stdin.feed(data, eof=False)
            return len(self.process.stdin.pending)


def _show(viewer: Viewer, name: str, data: bytes) -> bool:
    room = True
    for at in range(0, len(data), FRAME_BYTES):
        room = viewer.show(name, data[at : at + FRAME_BYTES]) and room
    return room


class Sessions:
    """All sessions by name. Thread-safe."""

    def __init__(self, processes: Processes, paths: Paths) -> None:
        self._processes = processes
        self._paths = paths
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}

    def create(
        self, name: str, command: str, workdir: str, size: tuple[int, int], viewer: Viewer
    ) -> Session | str:
        """Run a command on a new terminal, watched by `viewer`; or why that failed."""
        session = Session(name, self._processes)
        session.process.on_end = lambda: self._end(session)
        with self._lock:
            if name in self._sessions:
                return f"session {name} already exists"
            self._sessions[name] = session
        # before the start, so that nothing is missed
        session.attach(viewer, scrollback=False)
        try:
            program = Program(
                argv=[b"/bin/sh", b"-c", command.encode()],
                cwd=self._paths.resolve(workdir.encode()),
                env=environment(None, {b"TERM": b"xterm-256color"}),
                pty=size,
            )
            self._processes.launch(session.process, program, None)
        except (OSError, ValueError, BadRequest) as error:
            self._forget(session)
            return f"failed to start pty: {error}"
        return session if session.process.pid else "failed to start pty: /bin/sh cannot be run"

    def _end(self, session: Session) -> None:
        self._forget(session)
        session.tell_end()

    def _forget(self, session: Session) -> None:
        with self._lock:
            self._sessions.pop(session.name, None)

    def get(self, name: str) -> Session | None:
        """The session of this name."""
        with self._lock:
            return self._sessions.get(name)

    def names(self) -> list[str]:
        """Names of all sessions, sorted."""
        with self._lock:
            return sorted(self._sessions)
