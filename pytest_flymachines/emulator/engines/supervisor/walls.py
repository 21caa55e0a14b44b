"""The walls of a machine: control groups, and the namespaces that bubblewrap makes."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pytest_flymachines.emulator.engines.supervisor import linux
from pytest_flymachines.emulator.engines.supervisor.tree import children

__all__ = ["Cgroup", "WallsError", "build", "enter"]

_SETUP_TIMEOUT_MS = 30_000


class WallsError(Exception):
    """bubblewrap, the kernel or a control group refused."""


@dataclass
class Cgroup:
    """The control groups of one machine, by descriptors: paths lose their meaning inside."""

    into: int | None = None
    tasks: tuple[int, ...] = ()
    _oom: list[int] = field(default_factory=list)

    @classmethod
    def create(cls, plan: dict[str, Any]) -> Cgroup:
        """Make the groups and write their limits; see `cgroups.MachineGroups.plan`.

        Raises:
            WallsError: The kernel refused a group or a limit.
        """
        try:
            for path in plan["directories"]:
                Path(path).mkdir()
            for path, value in plan["limits"]:
                Path(path).write_text(value)
            into = plan["into"]
            return cls(
                into=os.open(into, os.O_RDONLY | os.O_DIRECTORY) if into else None,
                tasks=tuple(os.open(path, os.O_WRONLY) for path in plan["tasks"]),
                _oom=[os.open(path, os.O_RDONLY) for path in plan["oom"]],
            )
        except OSError as error:
            raise WallsError(f"control group: {error}") from error

    def oom_kills(self) -> int:
        """How many processes the kernel has killed because the group was out of memory."""
        total = 0
        for fd in self._oom:
            for line in os.pread(fd, 4096, 0).decode().splitlines():
                name, _, value = line.partition(" ")
                if name == "oom_kill":
                    total += int(value)
        return total


class _Theirs(NamedTuple):
    """Descriptors that bubblewrap gets."""

    stdin: int
    stdout: int
    stderr: int
    others: tuple[int, ...]

    def close(self) -> None:
        for fd in (self.stdin, self.stdout, self.stderr, *self.others):
            os.close(fd)


def build(bwrap: list[str], ids: dict[str, Any], cgroup: Cgroup) -> list[int]:
    """Run bubblewrap; pids of it, of the machine's first process, and of the anchor.

    The anchor is `cat`: it says that it runs, by echoing a byte, does nothing after that, and
    ends should our end of its stdin close.

    Args:
        bwrap: Its path and options, with the anchor's command last.
        ids: `uid_map` and `gid_map`, the lines for /proc/PID/; `helpers`: they need newuidmap
            and newgidmap; `deny_setgroups`: the kernel asks for that.
        cgroup: Where it and everything below it lives.

    Raises:
        WallsError: With what bubblewrap said.
    """
    info, info_w = os.pipe()
    mapped_r, mapped = os.pipe()
    echo, echo_w = os.pipe()
    anchor_r, anchor = os.pipe()
    said, said_w = os.pipe()
    options = ["--info-fd", str(info_w), "--userns-block-fd", str(mapped_r)]
    # By descriptor, since a command line can be read inside.
    arguments = _in_memory("".join(f"{option}\0" for option in bwrap[1:-1]))
    theirs = _Theirs(anchor_r, echo_w, said_w, (info_w, mapped_r, arguments))
    pid = linux.fork_into(cgroup.into)
    if pid == 0:
        _execute([bwrap[0], *options, "--args", str(arguments), bwrap[-1]], cgroup, theirs)
    theirs.close()
    try:
        first = _first_process(info)
        _map_ids(first, ids)
        os.write(mapped, b"1")
        os.write(anchor, b"1")
        if not _readable(echo) or not os.read(echo, 1):
            raise WallsError("its first process did not start")
    except (OSError, ValueError, WallsError) as error:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        text = os.read(said, 4096).decode(errors="replace").strip() if _readable(said) else ""
        raise WallsError(text or str(error)) from error
    finally:
        # Not those of the anchor: they are held for the machine's whole life.
        for fd in (info, mapped, said):
            os.close(fd)
    return [pid, first, *children(first)]


def enter(first: int, *, own_network: bool = True) -> None:
    """Step into the namespaces of the machine's first process.

    Args:
        first: Its pid.
        own_network: It has one; else we are in its network already.

    Raises:
        WallsError: The kernel refused.
    """
    try:
        without = 0 if own_network else linux.NEW_NETWORK
        linux.join_namespaces(first, linux.MACHINE_NAMESPACES & ~without)
        linux.die_with_parent(signal.SIGTERM)  # The kernel forgets it with a change of ids.
        linux.forget_capabilities()
        os.chdir("/")
    except OSError as error:
        raise WallsError(f"cannot enter the machine's namespaces: {error}") from error


def _execute(argv: list[str], cgroup: Cgroup, fds: _Theirs) -> None:
    try:
        signal.set_wakeup_fd(-1)
        # Ignored signals stay so over exec: only SIGKILL from inside can end the anchor.
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)
        for tasks in cgroup.tasks:
            os.write(tasks, b"0")
        for target, fd in enumerate((fds.stdin, fds.stdout, fds.stderr)):
            os.dup2(fd, target)
        for fd in fds.others:
            os.set_inheritable(fd, True)
        # by its name alone: the machine's `ps` shows it, and recordings what `ps` shows
        name = Path(argv[0]).name
        os.execve(argv[0], [name, *argv[1:]], {})  # noqa: S606 (argv is the point)
    except BaseException as error:  # noqa: BLE001 (nothing may return into the parent's code)
        os.write(2, f"{argv[0]}: {error}".encode())
    finally:
        os._exit(1)


def _in_memory(text: str) -> int:
    fd = os.memfd_create("arguments", os.MFD_CLOEXEC)
    os.write(fd, os.fsencode(text))
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _first_process(info: int) -> int:
    text = b""
    while _readable(info) and (piece := os.read(info, 4096)):
        text += piece
        with contextlib.suppress(ValueError):
            return int(json.loads(text)["child-pid"])
    raise WallsError("bubblewrap ended at once")


def _map_ids(first: int, ids: dict[str, Any]) -> None:
    if ids["helpers"]:
        for helper, numbers in (("newuidmap", ids["uid_map"]), ("newgidmap", ids["gid_map"])):
            done = subprocess.run(
                [helper, str(first), *numbers.split()], capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise WallsError(f"{helper}: {done.stderr.strip()}")
        return
    if ids["deny_setgroups"]:
        Path(f"/proc/{first}/setgroups").write_text("deny")
    for name in ("uid_map", "gid_map"):
        Path(f"/proc/{first}/{name}").write_text(ids[name])


def _readable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(_SETUP_TIMEOUT_MS))
