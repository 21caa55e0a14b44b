"""The spawner: one small process per engine, forks a supervisor for each machine."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path

from pytest_flymachines.emulator.engines.supervisor import linux, supervise, switch, tree, wire

__all__ = ["main"]

_SECONDS_FOR_SUPERVISORS_TO_END = 20.0


def main() -> None:
    """Serve `argv[1]`, a descriptor, for the process `argv[2]`, until either is gone.

    Requests: `{"id", "op": "machine", "cgroups": [path, ...]}` with the supervisor's end of a
    control socket, or `{"id", "op": "switch", "cgroups": []}` with that of the switch; answered
    with its pid. Its end is told as `{"event": "gone", "pid"}`, when it is reaped and its cgroups
    are removed. Further arguments are cgroups to remove at the end.
    """
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    # A signal for the emulator's process group or terminal is the emulator's to handle.
    os.setsid()
    linux.adopt_orphans()
    spawner = _Spawner(control)
    with contextlib.suppress(ProcessLookupError):
        spawner.serve(os.pidfd_open(int(sys.argv[2])))
    spawner.drain()
    for path in sys.argv[3:]:
        remove_cgroup(Path(path))


class _Spawner:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._machines: dict[int, list[str]] = {}
        self._wakeup, wake = socket.socketpair()
        for end in (self._wakeup, wake):
            end.setblocking(False)
        self._wake = wake
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)

    def serve(self, owner: int) -> None:
        """Until the emulator is gone or has closed its end."""
        poll = select.poll()
        for fd in (self._control.fileno(), self._wakeup.fileno(), owner):
            poll.register(fd, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if self._wakeup.fileno() in ready:
                with contextlib.suppress(BlockingIOError):
                    self._wakeup.recv(4096)
                self._reap()
            if self._control.fileno() in ready:
                message, fds = wire.receive(self._control)
                if message is wire.CLOSED:
                    return
                self._fork(message, fds)
            if owner in ready:
                return

    def drain(self) -> None:
        """Have the supervisors end their machines, and wait for them."""
        self._control.close()
        for pid in self._machines:
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + _SECONDS_FOR_SUPERVISORS_TO_END
        while self._machines:
            self._reap()
            if time.monotonic() > deadline:
                for pid in self._machines:
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.005)

    def _fork(self, message: wire.Message, fds: list[int]) -> None:
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            self._wakeup.close()
            self._wake.close()
            self._control.close()
            main = supervise.main if message["op"] == "machine" else switch.main
            main(socket.socket(fileno=fds[0]), parent)
        wire.close_all(fds)
        self._machines[pid] = message["cgroups"]
        self._tell({"id": message["id"], "pid": pid})

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                cgroups = self._machines.pop(ended[0], None)
                if cgroups is not None:
                    self._kill_orphans()
                    for path in cgroups:
                        remove_cgroup(Path(path))
                    self._tell({"event": "gone", "pid": ended[0]})

    def _kill_orphans(self) -> None:
        """End what a supervisor that was itself killed has left to us."""
        for pid in tree.children(os.getpid()):
            if pid not in self._machines:
                tree.kill_tree(pid)

    def _tell(self, message: wire.Message) -> None:
        with contextlib.suppress(OSError):
            wire.send(self._control, message)


def remove_cgroup(path: Path) -> None:
    """Remove a cgroup whose processes have ended; the kernel may need a moment to notice."""
    for _ in range(400):
        try:
            path.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            with contextlib.suppress(OSError):
                (path / "cgroup.kill").write_text("1")
            time.sleep(0.005)
        else:
            return
