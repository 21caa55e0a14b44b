"""Starting one program: descriptors, terminal, session and user."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import subprocess
import termios
from contextlib import ExitStack
from typing import NamedTuple

from .users import User

DEV_NULL = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)


class CannotRun(Exception):
    """The program was not started; `code` is what a shell answers then (126 or 127)."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Program(NamedTuple):
    """What to start; `pty` is (rows, cols) of a new terminal, or None for pipes."""

    argv: list[bytes]
    cwd: bytes
    env: dict[bytes, bytes]
    user: User | None = None
    pty: tuple[int, int] | None = None
    stdin: bool = False


class Spawned(NamedTuple):
    """A started program; our ends of its descriptors do not block. `stderr` may be -1."""

    popen: subprocess.Popen[bytes]
    stdin: int
    stdout: int
    stderr: int


def spawn(program: Program) -> Spawned:
    """Start a program as the leader of its own session and process group.

    Raises:
        CannotRun: There is no such program, or it cannot be executed.
        OSError: The working directory, or a resource of the machine, is not to be had.
    """
    # the child's error names the program for both, so the directory is tried first
    os.close(os.open(program.cwd, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    with ExitStack() as ours, ExitStack() as theirs:
        spawned = (_on_terminal if program.pty else _on_pipes)(program, ours, theirs)
        for fd in {spawned.stdin, spawned.stdout, spawned.stderr} - {-1}:
            os.set_blocking(fd, False)
        ours.pop_all()
    return spawned


def _on_pipes(program: Program, ours: ExitStack, theirs: ExitStack) -> Spawned:
    def pipe(child_reads: bool) -> tuple[int, int]:
        ends = os.pipe()
        theirs.callback(os.close, ends[not child_reads])
        ours.callback(os.close, ends[child_reads])
        return ends[child_reads], ends[not child_reads]

    stdin, child_in = pipe(True) if program.stdin else (-1, DEV_NULL)
    stdout, child_out = pipe(False)
    stderr, child_err = pipe(False)
    return Spawned(_popen(program, child_in, child_out, child_err), stdin, stdout, stderr)


def _on_terminal(program: Program, ours: ExitStack, theirs: ExitStack) -> Spawned:
    assert program.pty
    master, slave = os.openpty()
    ours.callback(os.close, master)
    theirs.callback(os.close, slave)
    set_window_size(master, *program.pty)
    if program.user and os.geteuid() == 0:
        os.fchown(slave, program.user.uid, -1)
    # reading and writing are watched apart, so each has its own descriptor
    stdin = os.dup(master)
    ours.callback(os.close, stdin)
    return Spawned(_popen(program, slave, slave, slave), stdin, master, -1)


def _popen(program: Program, stdin: int, stdout: int, stderr: int) -> subprocess.Popen[bytes]:
    user = program.user if os.geteuid() == 0 else None
    try:
        return subprocess.Popen(
            program.argv,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd=program.cwd,
            env=program.env,
            start_new_session=True,
            user=user.uid if user else None,
            group=user.gid if user else None,
            extra_groups=user.groups if user else None,
            preexec_fn=_take_terminal if program.pty else None,
        )
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE):
            raise
        missing = error.errno in (errno.ENOENT, errno.ENOTDIR) or not _is_on_path(program)
        name = program.argv[0].decode("utf-8", "replace")
        reason = os.strerror(errno.ENOENT) if missing else error.strerror
        raise CannotRun(127 if missing else 126, f"{name}: {reason}\n") from error


def _is_on_path(program: Program) -> bool:
    """Whether there is a file of this name; a directory of PATH that is closed has none."""
    name = program.argv[0]
    if b"/" in name:
        return True
    directories = program.env.get(b"PATH", os.fsencode(os.defpath)).split(b":")
    return any(os.path.lexists(os.path.join(directory, name)) for directory in directories)


def _take_terminal() -> None:
    """Make the terminal on stdin the controlling one; one system call, safe after fork."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def set_window_size(terminal: int, rows: int, cols: int) -> None:
    """Tell a terminal its size; its foreground process group gets SIGWINCH."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))
