"""What /proc tells of a machine's processes."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

from pytest_flymachines.emulator.engines.base import GuestProcess
from pytest_flymachines.emulator.engines.supervisor.tree import descendants

__all__ = ["describe", "list_processes", "resident_bytes"]

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_LISTEN = "0A"


def list_processes(
    supervisor: int, *, hidden: Iterable[int] = (), walled: bool = False
) -> list[GuestProcess]:
    """The processes below a supervisor, with the pids that they have in the machine.

    Times are in milliseconds: `stime` of the kernel for it, `rtime` since it started, `cpu`
    of both kernel and program; `rss` is in bytes.

    Args:
        supervisor: Its pid.
        hidden: What belongs to the walls and not to the machine.
        walled: The machine has a pid namespace: what is outside belongs to the walls too.
    """
    listeners: dict[str, dict[str, tuple[str, str]]] = {}
    pids = set(descendants(supervisor)) - set(hidden)
    if walled:
        outside = _namespaces(supervisor)
        pids = {pid for pid in pids if _namespaces(pid) > outside}
    described = (describe(Path("/proc", str(pid)), listeners) for pid in pids)
    return sorted(filter(None, described), key=lambda process: process.pid)


def _namespaces(pid: int) -> int:
    """How many pid namespaces deep a process is; 0 if it is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text("latin-1").splitlines():
            if line.startswith("NSpid:"):
                return len(line.split()) - 1
    return 0


def resident_bytes(supervisor: int) -> int:
    """Memory held by the processes below a supervisor; what they share counts for each."""
    total = 0
    for pid in descendants(supervisor):
        with contextlib.suppress(OSError):
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    return total


def describe(
    process: Path, listeners: dict[str, dict[str, tuple[str, str]]]
) -> GuestProcess | None:
    """One process by its directory in /proc; None if it is gone, or not of this computer.

    Args:
        process: The directory.
        listeners: Kept over the processes of one listing; empty at first.
    """
    try:
        return _describe(process, listeners)
    except (OSError, LookupError, ValueError):
        return None


def _describe(process: Path, listeners: dict[str, dict[str, tuple[str, str]]]) -> GuestProcess:
    status = dict(
        line.split(":\t", 1)
        for line in (process / "status").read_text("utf-8", "replace").splitlines()
        if ":\t" in line
    )
    numbers = (process / "stat").read_text("latin-1").rpartition(")")[2].split()
    utime, stime, started, rss_pages = (int(numbers[i]) for i in (11, 12, 19, 21))
    uptime_s = float(Path("/proc/uptime").read_text().split()[0])
    command = (process / "cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ")
    return GuestProcess(
        pid=int(status["NSpid"].split()[-1]),
        command=command.decode(errors="replace") or f"[{status['Name']}]",
        directory=_link(process / "cwd"),
        stime=stime * 1000 // _TICKS,
        rtime=max(0, int(uptime_s * 1000) - started * 1000 // _TICKS),
        cpu=(utime + stime) * 1000 // _TICKS,
        rss=rss_pages * _PAGE_BYTES,
        listen_sockets=tuple(_listening(process, listeners)),
    )


def _listening(
    process: Path, listeners: dict[str, dict[str, tuple[str, str]]]
) -> Iterator[tuple[str, str]]:
    namespace = _link(process / "ns/net")
    if namespace not in listeners:
        listeners[namespace] = dict(_listeners(process / "net"))
    with contextlib.suppress(PermissionError):
        for fd in sorted((process / "fd").iterdir()):
            if socket_ := listeners[namespace].get(_link(fd)):
                yield socket_


def _listeners(net: Path) -> Iterator[tuple[str, tuple[str, str]]]:
    """Listening sockets of a network namespace, by what a descriptor links to."""
    for proto in ("tcp", "tcp6"):
        with contextlib.suppress(FileNotFoundError):
            for line in (net / proto).read_text().splitlines()[1:]:
                columns = line.split()
                if columns[3] == _LISTEN:
                    yield f"socket:[{columns[9]}]", (proto, _address(columns[1]))


def _address(text: str) -> str:
    """`0100007F:1CFE` is `127.0.0.1:7422`: 32-bit words in the processor's byte order."""
    words, _, port = text.partition(":")
    packed = b"".join(
        int(words[i : i + 8], 16).to_bytes(4, "little") for i in range(0, len(words), 8)
    )
    if len(packed) == 4:
        return f"{socket.inet_ntop(socket.AF_INET, packed)}:{int(port, 16)}"
    return f"[{socket.inet_ntop(socket.AF_INET6, packed)}]:{int(port, 16)}"


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""
