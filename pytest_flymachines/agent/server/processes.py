"""The processes that clients know by name, and what they are told about them."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from .process import Output, Process
from .reactor import Reactor
from .spawn import Program
from .spool import Spool
from .wire import NotHere, pack, whole_characters

# Of each stream in one answer; as JSON it takes several times as much memory for a moment.
PIECE_BYTES = 2 << 20
# A last answer may be lost on its way, and is then asked for again.
KEEP_FORGOTTEN = 8
KEEP_ENDED = 200
# How often a waiting request looks whether its client is still there.
CLIENT_CHECK_S = 2.0


class KnownProcess(Process):
    """A process with a name, whose output is kept until it is forgotten."""

    def __init__(self, reactor: Reactor, name: str, directory: str) -> None:
        self.name = name
        self.stdout = Spool(directory)
        self.stderr = Spool(directory)
        super().__init__(reactor, self.stdout, self.stderr)


class Processes:
    """All processes of the agent. Thread-safe."""

    def __init__(self, reactor: Reactor, directory: str) -> None:
        self._reactor = reactor
        self._directory = directory
        self._lock = threading.Lock()
        self._count = 0
        # tells the processes of this agent from those of one before it in the same machine
        self._suffix = os.urandom(4).hex()
        self._known: dict[str, KnownProcess] = {}
        self._forgotten: deque[KnownProcess] = deque()
        self._alive: set[Process] = set()
        reactor.on_child = self._reap

    def start(self, program: Program, timeout_s: float | None) -> KnownProcess:
        """Start a program under a new name."""
        with self._lock:
            self._count += 1
            name = f"p{self._count}-{self._suffix}"
        process = KnownProcess(self._reactor, name, self._directory)
        self.launch(process, program, timeout_s)
        with self._lock:
            self._known[name] = process
            if len(self._known) > KEEP_ENDED:
                self._drop_oldest_ended()
        return process

    def prepare(self, output: Output) -> Process:
        """A process without a name, whose output goes elsewhere; `launch` starts it."""
        return Process(self._reactor, output, output)

    def launch(self, process: Process, program: Program, timeout_s: float | None) -> None:
        """Start a program as this process.

        Raises:
            OSError: The working directory, or a resource of the machine, is not to be had.
        """
        self._alive.add(process)
        try:
            process.start(program, timeout_s)
        except BaseException:
            self._alive.discard(process)
            raise

    def get(self, name: str) -> KnownProcess:
        """The process of this name, also one that was just forgotten.

        Raises:
            NotHere: There is none.
        """
        with self._lock:
            if process := self._known.get(name):
                return process
            for process in self._forgotten:
                if process.name == name:
                    return process
        raise NotHere(f"no process {name!r}; it was forgotten, or the agent was started anew")

    def forget(self, process: KnownProcess) -> None:
        """Kill it if it runs; its output goes when some others have been forgotten too."""
        process.kill()
        with self._lock:
            if self._known.pop(process.name, None):
                old = [p for p in self._forgotten if p.stdout.spilled or p.stderr.spilled]
                if not old and len(self._forgotten) == KEEP_FORGOTTEN:
                    old = [self._forgotten[0]]
                for other in old:  # those that need room on disk go first
                    self._forgotten.remove(other)
                    _close(other)
                self._forgotten.append(process)

    def kill_all(self) -> None:
        """Kill everything that still runs."""
        for process in list(self._alive):
            process.kill()

    def _reap(self) -> None:
        for process in list(self._alive):
            process.reap()
            if process.ended:
                self._alive.discard(process)

    def _drop_oldest_ended(self) -> None:
        for name, process in self._known.items():
            if process.ended:
                _close(self._known.pop(name))
                return


def _close(process: KnownProcess) -> None:
    with process.changed:
        process.stdout.close()
        process.stderr.close()


def wait_for_end(process: KnownProcess, wait_s: float | None, gone: Callable[[], bool]) -> None:
    """Wait until the process has ended, `wait_s` have passed or the client is `gone`."""
    deadline = None if wait_s is None else time.monotonic() + wait_s
    with process.done:
        while not process.ended and _sleep(process.done, deadline, gone):
            pass


def wait_for_output(
    process: KnownProcess, offsets: tuple[int, int], wait_s: float, gone: Callable[[], bool]
) -> None:
    """Wait until there is output beyond the offsets, or the end, but no longer than `wait_s`."""
    deadline = time.monotonic() + wait_s
    with process.changed:
        while not process.ended and not any(_new(process, offsets)):
            if not _sleep(process.changed, deadline, gone):
                return


def _new(process: KnownProcess, offsets: tuple[int, int]) -> list[int]:
    """Bytes of whole characters next after each offset; 0 where there is none yet."""
    spools = (process.stdout, process.stderr)
    return [
        whole_characters(spool.read(offset, 4))
        for spool, offset in zip(spools, offsets, strict=True)
    ]


def _sleep(news: threading.Condition, deadline: float | None, gone: Callable[[], bool]) -> bool:
    """Wait for news; false when it is time to answer."""
    left = CLIENT_CHECK_S if deadline is None else deadline - time.monotonic()
    if left <= 0:
        return False
    heard = news.wait(min(left, CLIENT_CHECK_S))
    return heard or not gone()


def report(process: KnownProcess, offsets: tuple[int, int] = (0, 0)) -> tuple[dict[str, Any], bool]:
    """The state of a process with its output from the offsets; and whether that is all of it."""
    with process.changed:
        out = _piece(process.stdout, offsets[0], process.ended)
        err = _piece(process.stderr, offsets[1], process.ended)
        complete = (
            process.ended
            and offsets[0] + len(out) >= process.stdout.size
            and offsets[1] + len(err) >= process.stderr.size
        )
        answer = {
            "id": process.name,
            "pid": process.pid,
            "running": not process.ended,
            "exit_code": process.exit_code,
            "exit_signal": process.exit_signal,
            "timed_out": process.timed_out,
            "stdout": pack(out),
            "stderr": pack(err),
            "stdout_size": process.stdout.size,
            "stderr_size": process.stderr.size,
            "stdout_truncated": process.stdout.truncated,
            "stderr_truncated": process.stderr.truncated,
            "duration_s": round(process.duration_s, 4),
        }
    return answer, complete


def _piece(spool: Spool, offset: int, ended: bool) -> bytes:
    """Output from an offset, cut between characters where more is, or may be, to come."""
    data = spool.read_all(offset, PIECE_BYTES)
    if not ended or offset + len(data) < spool.size:
        # a lone part of a character that nothing follows is given as it is
        data = data[: whole_characters(data) or len(data)]
    return data
