"""The supervisor of one machine: parent of its programs, maker of its sockets, its end."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import select
import signal
import socket
from base64 import b64decode
from pathlib import Path
from typing import Any, NoReturn

from pytest_flymachines.emulator.engines.supervisor import (
    linux,
    outbound,
    sixpn,
    walls,
    wire,
)
from pytest_flymachines.emulator.engines.supervisor.files import write_file
from pytest_flymachines.emulator.engines.supervisor.programs import (
    Identity,
    Launch,
    identity,
    launch,
)
from pytest_flymachines.emulator.engines.supervisor.tail import PIECE_BYTES, Tail
from pytest_flymachines.emulator.engines.supervisor.tree import kill_children

__all__ = ["main"]

_CONNECT_TIMEOUT_MS = 20
_UDP = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK


def main(control: socket.socket, spawner: int) -> NoReturn:
    """Serve one machine in this freshly forked process until it has ended; see `_Supervisor`.

    Args:
        control: Our end of the pair whose other end the emulator has.
        spawner: Pid of the parent, whose death ends the machine too.
    """
    try:
        supervisor = _Supervisor(control)
        linux.die_with_parent(signal.SIGTERM)
        linux.leave_session_keyring()
        if os.getppid() == spawner:
            supervisor.serve()
    finally:
        # Also after an error of ours: no process of the machine outlives its supervisor.
        kill_children(lambda *_: None)
        os._exit(0)


class _Supervisor:
    """Answers requests `{"id", "op", ...}` with `{"id", ...}`, an `error` if one went wrong.

    | op | fields, descriptors | answer |
    |---|---|---|
    | start | see `_start`; the log | `walls`, `linked`; sockets, interface, terminal |
    | exec | argv, env; stdin, stdout, stderr | `status`, from waitpid, when it has ended |
    | connect | addresses, port | errno and a connecting socket |
    | datagrams | address, port, source | a connected UDP socket |
    | signal | number | none |
    | kill | | none |

    When the machine has ended: `{"event": "exited", "status", "oom_kills"}`.
    """

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._execs: dict[int, int] = {}
        self._mains: set[int] = set()
        self._status: int | None = None
        self._walls: list[int] = []
        self._cgroup = walls.Cgroup()
        self._launch = Launch("/", None, (), None, isolated=False)
        self._env: dict[str, str] = {}
        self._wakeup, self._wake = socket.socketpair()
        for end in (self._wakeup, self._wake):
            end.setblocking(False)
        self._told_to_end = False
        self._poll = select.poll()
        self._log: Tail | None = None
        self._output = -1
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._on_terminate)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)

    def serve(self) -> None:
        """Until a main process has ended, or the emulator or the spawner is gone."""
        linux.adopt_orphans()
        for fd in (self._control.fileno(), self._wakeup.fileno()):
            self._poll.register(fd, select.POLLIN)
        while True:
            ready = {fd for fd, _ in self._poll.poll()}
            if self._output in ready:
                self._copy_output()
            if self._wakeup.fileno() in ready:
                with contextlib.suppress(BlockingIOError):
                    self._wakeup.recv(4096)
                self._reap()
                if self._status is not None or self._told_to_end:
                    break
            if self._control.fileno() in ready:
                message, fds = wire.receive(self._control)
                if message is wire.CLOSED:
                    break
                try:
                    self._answer(message, fds)
                finally:
                    wire.close_all(fds)
                if message["op"] == "kill":
                    break
        self._end()

    def _on_terminate(self, *_: object) -> None:
        self._told_to_end = True

    def _answer(self, message: wire.Message, fds: list[int]) -> None:
        serial = message["id"]
        try:
            match message["op"]:
                case "start":
                    self._start(serial, message, fds)
                case "exec":
                    stdin, stdout, stderr = fds
                    env = {**self._env, **message["env"]}
                    pid = launch(
                        message["argv"], env, (stdin, stdout, stderr), self._launch, Identity()
                    )
                    self._execs[pid] = serial
                case "connect":
                    self._connect(serial, message["addresses"], message["port"])
                case "datagrams":
                    with socket.socket(socket.AF_INET, _UDP) as sock:
                        sock.bind((message["source"], 0))
                        sock.connect((message["address"], message["port"]))
                        self._tell({"id": serial}, [sock.fileno()])
                case "signal":
                    for pid in self._mains:
                        os.kill(pid, message["number"])
        except (OSError, LookupError, walls.WallsError) as error:
            self._tell({"id": serial, "error": str(error)})

    def _start(self, serial: int, message: dict[str, Any], fds: list[int]) -> None:
        """Build the walls if any, step inside, write files, start the main processes.

        Fields: `cgroup`, `bwrap` (null: no walls), `ids`, `network_of` (a process whose network
        is to be shared, or null), `disks` (devices, and directories to mount them at),
        `root_directories` (to be made in the last of these, if that is the machine's root), `pasta`
        (or null), `address`, `root` (prefix of guest paths), `files`, `limits`, `listen` (port on
        loopback, or null), `env` (of execs), `tty`, and `programs` with `argv`, `env`, `user`
        each.

        The answer comes with the socket that listens, with the machine's interface to others if
        it is `linked`, and with the other ends of its terminals.
        """
        passed: list[int] = []
        device: int | None = None
        isolated = message["bwrap"] is not None
        self._cgroup = walls.Cgroup.create(message["cgroup"])
        if message["disks"]:
            linux.mount_disks(message["disks"])
            for name in message["root_directories"]:
                Path(message["disks"][-1][1], name).mkdir(exist_ok=True)
        if isolated:
            shared = message["network_of"]
            if shared is not None:
                linux.join_namespaces(shared, linux.NEW_USER | linux.NEW_NETWORK)
            self._walls = walls.build(message["bwrap"], message["ids"], self._cgroup)
            pasta = message["pasta"]
            if pasta is not None:
                self._walls.append(outbound.start_pasta(pasta["command"], self._walls[1]))
            devices = sixpn.open_devices() if shared is None else None
            walls.enter(self._walls[1], own_network=shared is None)
            if pasta is not None:
                outbound.await_network(self._walls[-1], pasta["blocked"])
            if shared is None:
                device = sixpn.connect(message["address"], devices)
        for name, value in message["limits"].items():
            _limit(getattr(resource, name), value)
        root = Path(message["root"])
        for file in message["files"]:
            write_file(root / file["path"].lstrip("/"), b64decode(file["content"]), file["mode"])
        self._env = {"HOME": Identity().home, **message["env"]}
        self._launch = Launch(
            cwd=str(root),
            cgroup=self._cgroup.into,
            cgroup_tasks=self._cgroup.tasks,
            data_bytes=message["data_bytes"],
            isolated=isolated,
        )
        programs = [(program, identity(program["user"], root)) for program in message["programs"]]
        if message["listen"] is not None:
            listener = socket.create_server(("127.0.0.1", message["listen"]), backlog=128)
            passed.append(listener.detach())
        if device is not None:
            passed.append(device)
        output = self._open_output(fds.pop())
        try:
            for program, who in programs:
                passed += self._start_main(program, who, output, tty=message["tty"])
            answer = {"id": serial, "walls": self._walls, "linked": device is not None}
            self._tell(answer, passed)
        finally:
            wire.close_all([output, *passed])

    def _start_main(
        self, program: dict[str, Any], who: Identity, output: int, *, tty: bool
    ) -> list[int]:
        """Execute a main process; gives the other end of its terminal, if it has one."""
        executed, executed_w = os.pipe()
        null = os.open("/dev/null", os.O_RDONLY)
        stdio, masters = (null, output, output), []
        used = [executed_w, null]
        if tty:
            master_fd, slave = os.openpty()
            masters.append(master_fd)
            used.append(slave)
            stdio = (slave, slave, slave)
        env = {"HOME": who.home, **program["env"]}
        try:
            self._mains.add(launch(program["argv"], env, stdio, self._launch, who, tty=tty))
            os.close(used.pop(0))
            os.read(executed, 1)
        finally:
            wire.close_all([executed, *used])
        return masters

    def _open_output(self, log: int) -> int:
        """A pipe whose other end is copied into the log, so that the log can be bounded."""
        self._log = Tail(log)
        self._output, output = os.pipe()
        os.set_blocking(self._output, False)
        self._poll.register(self._output, select.POLLIN)
        return output

    def _copy_output(self) -> bool:
        """Copy a piece; False if there is none, and at the end."""
        try:
            piece = os.read(self._output, PIECE_BYTES) if self._output >= 0 else b""
        except BlockingIOError:
            return False
        if piece and self._log is not None:
            self._log.write(piece)
        elif self._output >= 0:
            self._poll.unregister(self._output)
            os.close(self._output)
            self._output = -1
        return bool(piece)

    def _connect(self, serial: int, addresses: list[str], port: int) -> None:
        number = errno.ECONNREFUSED
        for address in addresses:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
                number = _connect(sock, (address, port))
                if number in {0, errno.EINPROGRESS}:
                    self._tell({"id": serial, "errno": number}, [sock.fileno()])
                    return
        self._tell({"id": serial, "errno": number})

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                self._ended(pid, status)

    def _ended(self, pid: int, status: int) -> None:
        if pid in self._mains:
            self._mains.remove(pid)
            if self._status is None:
                self._status = status
        elif (serial := self._execs.pop(pid, None)) is not None:
            self._tell({"id": serial, "status": status})

    def _end(self) -> None:
        """Kill what is left, reap it, and tell how the main process ended."""
        if self._walls:
            # The first process of a pid namespace takes all others with it. Its parent may be
            # frozen, and would never notice.
            for pid in self._walls:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                while True:
                    self._ended(*os.waitpid(-1, 0))
        else:
            kill_children(self._ended)
        while self._copy_output():
            pass
        oom_kills = self._cgroup.oom_kills()
        self._tell({"event": "exited", "status": self._status or 0, "oom_kills": oom_kills})

    def _tell(self, message: wire.Message, fds: list[int] | None = None) -> None:
        with contextlib.suppress(OSError):
            wire.send(self._control, message, fds or [])


def _connect(sock: socket.socket, address: tuple[str, int]) -> int:
    """0, EINPROGRESS, or why not. On loopback it is settled at once, unless a backlog is full."""
    number = sock.connect_ex(address)
    if number == errno.EINPROGRESS:
        poll = select.poll()
        poll.register(sock, select.POLLOUT)
        if poll.poll(_CONNECT_TIMEOUT_MS):
            number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return number


def _limit(which: int, value: int) -> None:
    _, hard = resource.getrlimit(which)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(which, (value, value))
