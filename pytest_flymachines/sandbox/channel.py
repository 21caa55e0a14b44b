"""The ways into a machine: what the handle needs, whoever carries it.

Two channels exist: the agent's HTTP, and the Machines API's exec alone. Everything above
this line (`exec`, `popen`, files, trees, workspaces) is written once, over this protocol.

Paths are `bytes`, as the machine's kernel sees them. A relative path, and `cwd`, is relative
to the channel's base, which is the workspace; the machine's side resolves it, so that no
request names a directory of the computer that runs the tests.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

__all__ = [
    "Channel",
    "Command",
    "FileInfo",
    "FileKind",
    "ProcessUpdate",
    "no_checkpoint",
    "no_user",
]

FileKind = Literal["file", "directory", "symlink", "fifo", "socket", "block", "char"]

_FORMATS: dict[FileKind, int] = {
    "file": stat.S_IFREG,
    "directory": stat.S_IFDIR,
    "symlink": stat.S_IFLNK,
    "fifo": stat.S_IFIFO,
    "socket": stat.S_IFSOCK,
    "block": stat.S_IFBLK,
    "char": stat.S_IFCHR,
}


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command to start in the machine.

    Attributes:
        argv: Arguments as the kernel gets them; no shell is added.
        cwd: Directory to start in.
        env: Variables set beside those of the machine.
        user: Name or numeric id of the user in the machine; None is root.
        stdin: Bytes given to the process, followed by end of file.
        keep_stdin: Leave stdin open for `write_stdin` after `stdin` was written.
        timeout_s: Seconds after which the machine kills the process group; None is never.
        pty: (rows, cols) to run on a new terminal; output is then all on stdout.
    """

    argv: Sequence[bytes]
    cwd: bytes = b""
    env: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    stdin: bytes = b""
    keep_stdin: bool = False
    timeout_s: float | None = None
    pty: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class ProcessUpdate:
    """What a process did since it was last asked.

    Attributes:
        id: Name of the process, given by the machine; good for `poll` and the rest.
        pid: Process id in the machine, 0 when it is not known.
        running: False once the process has ended and its exit code is known.
        exit_code: Exit code; 128 + n when signal n ended it; None while it runs.
        timed_out: The machine killed it because `timeout_s` had passed.
        stdout: Bytes from the offset that was asked for; may be only a part of what there is.
        stderr: The same for stderr.
        stdout_size: Bytes that the process has written to stdout so far.
        stderr_size: The same for stderr.
        duration_s: Seconds from start to end, or to now, by the machine's clock.
        stdout_truncated: The machine gave up keeping stdout (its limit or its disk is full).
        stderr_truncated: The same for stderr.
    """

    id: str
    pid: int = 0
    running: bool
    exit_code: int | None = None
    timed_out: bool = False
    stdout: bytes = b""
    stderr: bytes = b""
    stdout_size: int = 0
    stderr_size: int = 0
    duration_s: float = 0.0
    stdout_truncated: bool = False
    stderr_truncated: bool = False


@dataclass(frozen=True, kw_only=True)
class FileInfo:
    """One directory entry of the machine.

    Attributes:
        name: Name without its directory; bytes that are not UTF-8 as `surrogateescape`.
        kind: What it is; symlinks are not followed in listings.
        size: Bytes.
        mode: Permission bits, 0o7777 at most.
        mtime: Seconds since the epoch.
        uid: Owner.
        gid: Group.
        target: Where a symlink points, else None.
    """

    name: str
    kind: FileKind
    size: int
    mode: int
    mtime: float
    uid: int = 0
    gid: int = 0
    target: str | None = None

    @property
    def st_size(self) -> int:
        """`size`, under the name that `os.stat_result` has."""
        return self.size

    @property
    def st_mode(self) -> int:
        """Kind and permission bits, as `stat.S_ISDIR` and its siblings take them."""
        return _FORMATS[self.kind] | self.mode

    @property
    def st_mtime(self) -> float:
        """`mtime`, under the name that `os.stat_result` has."""
        return self.mtime

    @property
    def st_uid(self) -> int:
        """`uid`, under the name that `os.stat_result` has."""
        return self.uid

    @property
    def st_gid(self) -> int:
        """`gid`, under the name that `os.stat_result` has."""
        return self.gid


class Channel(Protocol):
    """One way into one machine. Thread-safe. File operations raise `errors.file_error`.

    Raises (all methods):
        AgentUnavailable: The agent was there and does not answer any more.
        MachineGone: The machine stopped or was destroyed.
        ApiError: Any other answer of the Machines API.
    """

    name: Literal["agent", "api"]

    def with_base(self, base: bytes) -> Channel:
        """The same way in, with relative paths resolved from another directory.

        A relative `base` is itself relative to the workspace, not to the present base.
        """
        ...

    def close(self) -> None:
        """Give back connections; the machine is not touched."""
        ...

    # processes

    def start(self, command: Command, *, wait_s: float, forget: bool) -> ProcessUpdate:
        """Start a command and wait up to `wait_s` seconds for its end.

        A command has ended when its own process has; what it left running in the background
        goes on and does not hold up the answer. A program that cannot be found or run gives
        exit code 127 or 126 and a line on stderr, as a shell would.

        With `forget`, the machine drops the process and its output as soon as an answer
        (this one or that of a `poll`) has told the end and carried the last byte; and a caller
        that goes away before the first answer, so that nobody knows the process's name, has
        it killed.

        Raises:
            SandboxFileError: `cwd` is not there or no directory.
            LookupError: No such user.
        """
        ...

    def poll(
        self, process: str, *, stdout: int, stderr: int, wait_s: float, forget: bool = False
    ) -> ProcessUpdate:
        """Output from the given offsets; waits up to `wait_s` for new output or the end.

        Raises:
            LookupError: No process of this name.
        """
        ...

    def write_stdin(self, process: str, data: bytes, *, eof: bool) -> None:
        """Write all of `data` to the process's stdin or terminal, then close it if `eof`.

        Raises:
            BrokenPipeError: The process does not read any more.
        """
        ...

    def signal(self, process: str, number: int, *, group: bool = True) -> None:
        """Send a signal to the process group (or to the process alone). Ended: no effect."""
        ...

    def resize(self, process: str, rows: int, cols: int) -> None:
        """Set the size of the process's terminal."""
        ...

    def forget(self, process: str) -> None:
        """Kill the process group if it still runs, and drop its output."""
        ...

    # files

    def read(self, path: bytes, *, offset: int = 0, size: int | None = None) -> Iterator[bytes]:
        """Content of a file, piece by piece, checked by a digest at the end."""
        ...

    def write(
        self,
        path: bytes,
        data: Iterable[bytes],
        *,
        mode: int | None,
        parents: bool,
        mtime_ns: int | None = None,
    ) -> int:
        """Write a file under a temporary name, check its digest, rename it; number of bytes.

        `mode` None keeps that of the file it replaces, else 0o644; `mtime_ns` is the time that it
        gets, in nanoseconds since 1970, None the machine's present. A symlink is followed. What
        cannot be replaced by a rename (devices, /proc, mount points) is written in place.
        """
        ...

    def append(self, path: bytes, data: bytes) -> None:
        """Add to the end of a file, which is made if missing."""
        ...

    def stat(self, path: bytes, *, follow: bool = True) -> FileInfo:
        """One file."""
        ...

    def listdir(self, path: bytes) -> list[FileInfo]:
        """Entries of a directory, sorted by name."""
        ...

    def walk(self, path: bytes, patterns: Sequence[str] | None = None) -> list[FileInfo]:
        """Everything below a directory, names relative to it, sorted; symlinks not followed.

        `patterns` are the parts of a glob, each matched with `fnmatchcase` against one part
        of the name (a leading dot is nothing special); `**` matches any number of directories,
        also none, and as the last part everything below. None takes all.
        """
        ...

    def mkdir(self, path: bytes, *, mode: int, parents: bool, exist_ok: bool) -> None:
        """Make a directory."""
        ...

    def remove(self, path: bytes, *, recursive: bool, missing_ok: bool) -> None:
        """Remove a file, a symlink, an empty directory or, if `recursive`, a tree.

        A symlink is removed itself, never what it points to.
        """
        ...

    def rename(self, source: bytes, target: bytes) -> None:
        """Rename; replaces a file, as `os.replace` does; never moves into a directory."""
        ...

    def chmod(self, path: bytes, mode: int) -> None:
        """Set permission bits."""
        ...

    def symlink(self, path: bytes, target: bytes) -> None:
        """Make `path` a symlink to `target`."""
        ...

    def touch(self, path: bytes, *, mode: int, exist_ok: bool) -> None:
        """Make an empty file, or set its times to now."""
        ...

    # trees, as pax tar streams without compression; the channel compresses on the wire

    def put_tree(self, path: bytes, tar: Iterable[bytes]) -> None:
        """Unpack a tar stream into a directory, which is made if missing.

        The whole stream is unpacked beside the target and checked by its digest; only then
        do its entries replace those of the target.
        """
        ...

    def get_tree(self, path: bytes, *, exclude: Sequence[str] = ()) -> Iterator[bytes]:
        """A directory, or a single file, as a tar stream with names relative to it.

        The entry of the directory itself is `.`, that of a single file its name. `exclude`
        has patterns (see `sandbox/patterns.py`); a channel may leave out less than they say,
        because the caller filters again, but never more.
        """
        ...

    # checkpoints of the base directory, and private copies of them

    def save_checkpoint(self, name: str) -> None:
        """Keep a copy of the base directory under a name, replacing an older one."""
        ...

    def restore_checkpoint(self, name: str) -> None:
        """Make the base directory's content that of a checkpoint.

        Raises:
            LookupError: No checkpoint of this name.
        """
        ...

    def delete_checkpoint(self, name: str) -> None:
        """Drop a checkpoint.

        Raises:
            LookupError: No checkpoint of this name.
        """
        ...

    def checkpoints(self) -> list[str]:
        """Names of the checkpoints, sorted."""
        ...

    def make_workspace(self, checkpoint: str) -> bytes:
        """A new directory with a checkpoint's content, in the cheapest way; its absolute path.

        Raises:
            LookupError: No checkpoint of this name.
        """
        ...

    def drop_workspace(self, path: bytes) -> None:
        """Remove a directory that `make_workspace` gave."""
        ...


def no_checkpoint(name: str, machine_id: str) -> LookupError:
    """The error for a checkpoint that was never made, or deleted."""
    return LookupError(
        f"no checkpoint {name!r} on machine {machine_id}: checkpoints() lists those that there "
        f"are, and checkpoint({name!r}) makes it"
    )


def no_user(user: str, machine_id: str) -> LookupError:
    """The error for a user that a machine does not have."""
    return LookupError(
        f"user={user!r}: machine {machine_id} has no user of this name in /etc/passwd; make it "
        f"with exec('useradd {user}') or in the image, or give a number"
    )
