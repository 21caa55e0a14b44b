"""Starting a program in the machine: who it runs as, with what, and what it says if it cannot."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_flymachines.emulator.engines.supervisor import linux

__all__ = ["Identity", "Launch", "identity", "launch"]

_TO_DEFAULT = (
    signal.SIGCHLD,
    signal.SIGINT,
    signal.SIGPIPE,
    signal.SIGTERM,
    signal.SIGXFSZ,
)
_NOT_FOUND = 127
_NOT_EXECUTABLE = 126


@dataclass(frozen=True)
class Identity:
    """Whom a program runs as, from the machine's /etc/passwd."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    home: str = "/root"


@dataclass(frozen=True)
class Launch:
    """Circumstances that all programs of one machine share.

    Attributes:
        cwd: Where they start.
        cgroup: Version 2 cgroup to be born in: an open directory.
        cgroup_tasks: Version 1 `tasks` files, open for writing.
        data_bytes: Limit of each one's own writable memory, where no cgroup limits all.
        isolated: They run in namespaces, so there is a user to become.
    """

    cwd: str
    cgroup: int | None
    cgroup_tasks: tuple[int, ...]
    data_bytes: int | None
    isolated: bool


def identity(user: str | None, root: Path) -> Identity:
    """Resolve `name`, `uid`, `name:group` or `uid:gid`.

    Not with the `pwd` module: it would load name service plug-ins out of the machine.

    Raises:
        LookupError: No such user or group.
    """
    if not user:
        return Identity()
    name, _, group = user.partition(":")
    rows = {row[0]: row for row in _table(root / "etc/passwd", 7)}
    by_uid = {row[2]: row for row in rows.values()}
    row = rows.get(name) or by_uid.get(name)
    if row is None:
        if not name.isdigit():
            raise LookupError(f"no user {name!r} in /etc/passwd of the machine")
        row = [name, "", name, name, "", "/", ""]
    groups = _table(root / "etc/group", 4)
    gid = int(row[3])
    if group:
        named = {g[0]: int(g[2]) for g in groups}
        if group not in named and not group.isdigit():
            raise LookupError(f"no group {group!r} in /etc/group of the machine")
        gid = named.get(group) or int(group)
    others = [int(g[2]) for g in groups if row[0] in g[3].split(",")]
    return Identity(int(row[2]), gid, tuple({gid, *others}), row[5] or "/")


def launch(
    argv: Sequence[str],
    env: Mapping[str, str],
    stdio: tuple[int, int, int],
    common: Launch,
    who: Identity,
    *,
    tty: bool = False,
) -> int:
    """Fork and execute a program; its pid as this process sees it.

    A program that is not there ends with 127 and one that cannot be executed with 126, each
    with a line on its stderr, as a shell would have it.

    Args:
        argv: Program, looked up on the PATH of `env`, and its arguments.
        env: Its whole environment.
        stdio: Its stdin, stdout and stderr.
        common: What it shares with the other programs of the machine.
        who: Whom it runs as.
        tty: `stdio` is a terminal, which becomes its controlling one.
    """
    pid = linux.fork_into(common.cgroup)
    if pid:
        return pid
    try:
        signal.set_wakeup_fd(-1)
        for number in _TO_DEFAULT:
            signal.signal(number, signal.SIG_DFL)
        for tasks in common.cgroup_tasks:
            os.write(tasks, b"0")
        if tty:
            os.login_tty(os.dup(stdio[0]))
        else:
            os.setsid()
            for target, fd in enumerate(stdio):
                os.dup2(fd, target)
        _settle(common, who)
        os.execvpe(argv[0], list(argv), env)  # noqa: S606 (argv is the point)
    except OSError as error:
        missing = error.errno in {errno.ENOENT, errno.ENOTDIR} or not _on_path(argv[0], env)
        _complain(f"{argv[0]}: {error.strerror or error}")
        os._exit(_NOT_FOUND if missing else _NOT_EXECUTABLE)
    except BaseException as error:  # noqa: BLE001 (nothing may return into the parent's code)
        _complain(f"{argv[0]}: {error!r}")
    finally:
        os._exit(_NOT_EXECUTABLE)


def _settle(common: Launch, who: Identity) -> None:
    with contextlib.suppress(OSError):
        # When the whole computer runs out of memory, a machine goes first.
        Path("/proc/self/oom_score_adj").write_text("500")
    if common.data_bytes is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (common.data_bytes, common.data_bytes))
    if common.isolated:
        _become(who)
    else:
        linux.die_with_parent(signal.SIGKILL)
    os.umask(0o022)
    os.chdir(common.cwd)


def _become(who: Identity) -> None:
    # An ordinary user without newuidmap has one id in the machine, and may not call setgroups.
    with contextlib.suppress(PermissionError):
        os.setgroups(who.groups)
    os.setresgid(who.gid, who.gid, who.gid)
    os.setresuid(who.uid, who.uid, who.uid)


def _on_path(program: str, env: Mapping[str, str]) -> bool:
    """Whether there is such a file: a PATH directory that may not be entered says EACCES too."""
    directories = [""] if "/" in program else env.get("PATH", os.defpath).split(":")
    return any(os.access(Path(directory, program), os.F_OK) for directory in directories)


def _complain(text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, text.encode(errors="backslashreplace") + b"\n")


def _table(path: Path, columns: int) -> list[list[str]]:
    try:
        text = path.read_text("utf-8", "surrogateescape")
    except OSError:
        return []
    return [row for line in text.splitlines() if len(row := line.split(":")) == columns]
