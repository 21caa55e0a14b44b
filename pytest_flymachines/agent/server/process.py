"""A process that the agent started: its output, its input, its end."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from .reactor import READ, Reactor
from .spawn import CannotRun, Program, Spawned, set_window_size, spawn
from .stdin import Stdin

READ_BYTES = 65536
# What a command has handed to others (`cmd > >(tee log)`) may still arrive after its end. A
# server that it left in the background keeps its stdout open for good: so wait, but not long.
LINGER_S = 0.1


class Output(Protocol):
    """Where the bytes of one stream go."""

    def append(self, data: bytes) -> bool:
        """Take the next bytes, with the process's lock held.

        False asks for no more until `resume_output`; the process then waits when its pipe is full.
        """
        ...


class Process:
    """One running or ended program. Thread-safe.

    Attributes:
        changed: Guards the state, and announces new output, room in stdin and the end.
        done: The same lock; announces the end only.
        pid: Its process id, also that of its process group and session; 0 if never started.
        ended: It has ended and its output is complete.
        exit_code: 128 + n when signal n ended it; None until `ended`.
        exit_signal: The signal that ended it, else 0.
        timed_out: It was killed because its time was over.
    """

    def __init__(self, reactor: Reactor, stdout: Output, stderr: Output) -> None:
        lock = threading.Lock()
        self.changed = threading.Condition(lock)
        self.done = threading.Condition(lock)
        self.pid = 0
        self.ended = False
        self.exit_code: int | None = None
        self.exit_signal = 0
        self.timed_out = False
        self.on_end: Callable[[], None] = lambda: None
        self._reactor = reactor
        self._outputs = (stdout, stderr)
        self._streams: dict[int, Output] = {}
        self._paused: set[int] = set()
        self._started = time.monotonic()
        self._duration_s: float | None = None
        self._timer = 0
        self._spawned: Spawned | None = None
        self.stdin = Stdin(reactor, -1, self.changed, False)

    @property
    def duration_s(self) -> float:
        """Seconds from start to end, or to now."""
        spent = self._duration_s
        return time.monotonic() - self._started if spent is None else spent

    def start(self, program: Program, timeout_s: float | None) -> None:
        """Start it. A program that cannot be executed has ended at once, as in a shell.

        Raises:
            OSError: The working directory, or a resource of the machine, is not to be had.
        """
        self._started = time.monotonic()
        try:
            spawned = spawn(program)
        except CannotRun as error:
            with self.changed:
                self._outputs[0 if program.pty else 1].append(str(error).encode())
                self._finish(error.code)
            return
        with self.changed:
            self._spawned = spawned
            self.pid = spawned.popen.pid
            self.stdin = Stdin(self._reactor, spawned.stdin, self.changed, program.pty is not None)
            self._watch(spawned.stdout, self._outputs[0])
            if spawned.stderr >= 0:
                self._watch(spawned.stderr, self._outputs[1])
            if timeout_s is not None:
                self._timer = self._reactor.call_later(timeout_s, self._time_over)
        self.reap()  # the news of a quick end may have come before there was anybody to take it

    def _watch(self, fd: int, output: Output) -> None:
        self._streams[fd] = output
        self._reactor.watch(fd, READ, lambda: self._readable(fd))

    def resume_output(self) -> None:
        """Read again, after an output had no room."""
        with self.changed:
            for fd in self._paused & self._streams.keys():
                self._watch(fd, self._streams[fd])
            self._paused.clear()

    def _readable(self, fd: int) -> None:
        with self.changed:
            self._read(fd)
            self._finish_if_complete()

    def _read(self, fd: int) -> bool:
        """Take one piece of output; false when there is none now."""
        output = self._streams.get(fd)
        if output is None:
            return False
        try:
            data = os.read(fd, READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:  # EIO: nobody has the terminal open any more
            data = b""
        if data:
            if not output.append(data):
                self._paused.add(fd)
                self._reactor.unwatch(fd)
            self.changed.notify_all()
        else:
            self._close_stream(fd)
        return bool(data)

    def _close_stream(self, fd: int) -> None:
        if self._streams.pop(fd, None) is not None:
            self._reactor.unwatch(fd)
            os.close(fd)

    def reap(self) -> None:
        """Collect the exit status, and what is left of the output, if the process has ended."""
        with self.changed:
            if self.ended or self._spawned is None or self._spawned.popen.poll() is None:
                return
            for fd in list(self._streams):
                while self._read(fd):
                    pass
            if self._streams:
                self._reactor.call_later(LINGER_S, self._linger_over)
            else:
                self._finish(self._status())

    def _linger_over(self) -> None:
        with self.changed:
            self._finish(self._status())

    def _finish_if_complete(self) -> None:
        if not self._streams and self._spawned and self._spawned.popen.poll() is not None:
            self._finish(self._status())

    def _status(self) -> int:
        assert self._spawned
        returncode = self._spawned.popen.returncode
        if returncode < 0:
            self.exit_signal = -returncode
        return returncode if returncode >= 0 else 128 - returncode

    def _finish(self, exit_code: int) -> None:
        if self.ended:
            return
        self._reactor.cancel(self._timer)
        self.stdin.close()
        for fd in list(self._streams):
            self._abandon(fd)
        self._duration_s = time.monotonic() - self._started
        self.exit_code = exit_code
        self.ended = True
        self.changed.notify_all()
        self.done.notify_all()
        self.on_end()

    def _abandon(self, fd: int) -> None:
        """Throw away what a background child still writes; closing would kill it by SIGPIPE."""
        assert self._spawned
        if self._spawned.stderr < 0:  # a terminal hangs up when its session leader is gone
            self._close_stream(fd)
        else:
            del self._streams[fd]
            self._reactor.unwatch(fd)
            self._reactor.watch(fd, READ, lambda: self._discard(fd))

    def _discard(self, fd: int) -> None:
        with suppress(BlockingIOError):
            if not os.read(fd, READ_BYTES):
                self._reactor.unwatch(fd)
                os.close(fd)

    def _time_over(self) -> None:
        with self.changed:
            self.timed_out = self._reapable()
        self.kill()

    def _reapable(self) -> bool:
        """The pid is still ours: running, or ended and not yet collected."""
        return self._spawned is not None and self._spawned.popen.returncode is None

    def signal(self, number: int, *, group: bool) -> None:
        """Send a signal to the process group or the process alone; nothing once it has ended."""
        with self.changed, suppress(ProcessLookupError):
            if self._reapable():
                (os.killpg if group else os.kill)(self.pid, number)

    def kill(self) -> None:
        """Kill the whole session: a shell with job control gives each job a group of its own."""
        with self.changed:
            if self._reapable():
                for pid in session_members(self.pid):
                    with suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, signal.SIGKILL)
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.pid, signal.SIGKILL)

    def resize(self, rows: int, cols: int) -> None:
        """Set the size of its terminal; nothing if it has none or has ended."""
        with self.changed:
            if not self.ended and self._spawned and self._spawned.stderr < 0:
                for fd in self._streams:
                    set_window_size(fd, rows, cols)


def session_members(session: int) -> list[int]:
    """Process ids of a session, by proc(5): the sixth field of `stat`."""
    members = []
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with suppress(OSError, ValueError, IndexError):
                with open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
                if int(fields[3]) == session:
                    members.append(int(name))
    return members
