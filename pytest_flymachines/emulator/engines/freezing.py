"""Suspending a machine where no cgroup can freeze it: every process is stopped by a signal."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from pytest_flymachines.emulator.engines.supervisor.tree import descendants

__all__ = ["StoppedTree"]

_TIMEOUT_S = 10.0


class StoppedTree:
    """The processes below one, stopped.

    Programs that wait for stopped children, as shells with job control do, can notice.

    Args:
        root: It goes on; everything below it is stopped.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._stopped: list[int] = []

    def stop(self) -> None:
        """Stop all, until two looks in a row find nothing that runs."""
        deadline = time.monotonic() + _TIMEOUT_S
        quiet = 0
        while quiet < 2:
            running = [pid for pid in descendants(self._root) if not self._is_still(pid)]
            for pid in running:
                if pid not in self._stopped:
                    self._stopped.append(pid)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
            quiet = 0 if running else quiet + 1
            if time.monotonic() > deadline:
                raise TimeoutError(f"processes {running} did not stop")
            time.sleep(0.001)

    def _is_still(self, pid: int) -> bool:
        # What waits in the kernel meets the signal before its next instruction. A parent in vfork
        # waits there for a child that we may have stopped before its exec.
        return _state(pid) in ("TtZXD" if pid in self._stopped else "TtZX")

    def go_on(self) -> None:
        """Continue what `stop` has stopped, children before their parents."""
        for pid in reversed(self._stopped):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self._stopped.clear()


def _state(pid: int) -> str:
    """The letter of its state; X, dead, when it is gone."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text("latin-1")
    except OSError:
        return "X"
    return status.rpartition(")")[2].split()[0]
