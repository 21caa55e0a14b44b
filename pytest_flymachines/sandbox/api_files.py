"""Files over the Machines API's exec."""

from __future__ import annotations

import hashlib
import re
import stat
from collections.abc import Iterable, Iterator, Sequence

from pytest_flymachines.errors import FlyMachinesError
from pytest_flymachines.sandbox.api_processes import ApiProcesses, base_name, located
from pytest_flymachines.sandbox.channel import FileInfo, FileKind
from pytest_flymachines.sandbox.patterns import matches
from pytest_flymachines.sandbox.runner import Answer, RunnerFailed
from pytest_flymachines.sandbox.staging import fit
from pytest_flymachines.sandbox.text import decode_name

__all__ = ["ApiFiles"]

_PIECE_BYTES = 1_048_576
_UMASK = 0o022
_ATTEMPTS = 3
# the repository, or a cook-agent of the user's: packed anew in each run
_PACKED = re.compile(rb"(.*/)?\.pytest-flymachines\.(pack|agent)", re.DOTALL)

_LETTERS: dict[str, FileKind] = {
    "f": "file",
    "d": "directory",
    "l": "symlink",
    "p": "fifo",
    "s": "socket",
    "b": "block",
    "c": "char",
}
_FORMATS: dict[int, FileKind] = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFBLK: "block",
    stat.S_IFCHR: "char",
}


class ApiFiles(ApiProcesses):
    """The part of the channel that handles files."""

    def read(self, path: bytes, *, offset: int = 0, size: int | None = None) -> Iterator[bytes]:
        """Content of a file in pieces of 1 MiB, each with its digest."""
        while size is None or size > 0:
            wanted = _PIECE_BYTES if size is None else min(size, _PIECE_BYTES)
            piece = self._piece(path, offset, wanted)
            if piece:
                yield piece
            if len(piece) < wanted:
                return
            offset += len(piece)
            size = None if size is None else size - len(piece)

    def _piece(self, path: bytes, offset: int, size: int) -> bytes:
        for _ in range(_ATTEMPTS):
            answer = self._file("read", path, offset, size)
            (piece,) = answer.blocks
            if answer.words[0] in ("", hashlib.sha256(piece).hexdigest()):
                return piece
        raise FlyMachinesError(
            f"reading {decode_name(path)!r} on machine {self._runner.machine_id} gave bytes "
            f"that do not have the digest which the machine found, {_ATTEMPTS} times"
        )

    def write(
        self,
        path: bytes,
        data: Iterable[bytes],
        *,
        mode: int | None,
        parents: bool,
        mtime_ns: int | None = None,
    ) -> int:
        """Write a file under a temporary name, check its digest, rename it; number of bytes."""
        kind = "pack" if _PACKED.fullmatch(path) else ""
        staged = fit(self._runner, data, kind=kind)
        self._file(
            "put",
            path,
            staged.argument,
            "" if mode is None else f"{mode:o}",
            "1" if parents else "",
            staged.size,
            staged.sha256,
            *([] if mtime_ns is None else [_seconds(mtime_ns)]),
            staged=staged.name,
        )
        return staged.size

    def append(self, path: bytes, data: bytes) -> None:
        """Add to the end of a file, which is made if missing."""
        staged = fit(self._runner, [data])
        self._file("append", path, staged.argument, staged=staged.name)

    def stat(self, path: bytes, *, follow: bool = True) -> FileInfo:
        """One file."""
        answer = self._file("stat", path, "1" if follow else "")
        target = decode_name(answer.blocks[0]) if answer.blocks else None
        return _info(base_name(path), answer.words, target)

    def listdir(self, path: bytes) -> list[FileInfo]:
        """Entries of a directory, sorted by name."""
        return self._listed(path, "1")

    def walk(self, path: bytes, patterns: Sequence[str] | None = None) -> list[FileInfo]:
        """Everything below a directory, or what the parts of a glob match."""
        if patterns is None:
            return self._listed(path, "")
        found = self._listed(path, "" if "**" in patterns else str(len(patterns)))
        return [info for info in found if matches(info.name.split("/"), patterns)]

    def _listed(self, path: bytes, depth: str) -> list[FileInfo]:
        (block,) = self._file("list", path, depth).blocks
        fields = block.split(b"\0")[:-1]
        entries = sorted(zip(fields[1::3], fields[0::3], fields[2::3], strict=True))
        return [
            _info(decode_name(name), facts.decode().split(), decode_name(target))
            for name, facts, target in entries
        ]

    def mkdir(self, path: bytes, *, mode: int, parents: bool, exist_ok: bool) -> None:
        """Make a directory."""
        flags = ("1" if parents else "", "1" if exist_ok else "")
        self._file("mkdir", path, f"{mode & ~_UMASK:o}", *flags)

    def remove(self, path: bytes, *, recursive: bool, missing_ok: bool) -> None:
        """Remove a file, a symlink, an empty directory or, if `recursive`, a tree."""
        self._file("remove", path, "1" if recursive else "", "1" if missing_ok else "")

    def rename(self, source: bytes, target: bytes) -> None:
        """Rename; replaces a file, as `os.replace` does."""
        self._file("rename", source, located(target))

    def chmod(self, path: bytes, mode: int) -> None:
        """Set permission bits."""
        self._file("chmod", path, f"{mode:o}")

    def symlink(self, path: bytes, target: bytes) -> None:
        """Make `path` a symlink to `target`."""
        self._file("symlink", path, target)

    def touch(self, path: bytes, *, mode: int, exist_ok: bool) -> None:
        """Make an empty file, or set its times to now."""
        self._file("touch", path, f"{mode & ~_UMASK:o}", "1" if exist_ok else "")

    def _file(
        self, verb: str, path: bytes, *arguments: str | bytes | int, staged: str = ""
    ) -> Answer:
        """One operation on a file; it drops what was sent ahead for it, if it is done at all."""
        try:
            return self._runner.call(verb, located(path), *arguments)
        except RunnerFailed as failure:
            raise failure.error(decode_name(path)) from failure
        except BaseException:
            if staged:
                self._runner.try_call("drop", staged)
            raise


def _seconds(ns: int) -> str:
    whole, fraction = divmod(abs(ns), 10**9)
    return f"{'-' if ns < 0 else ''}{whole}.{fraction:09}"


def _info(name: str, facts: Sequence[str], target: str | None) -> FileInfo:
    """A file from kind or raw mode, permissions, size, time, owner and group."""
    kind, permissions, size, mtime, uid, gid = facts
    if permissions == "-":
        raw = int(kind, 16)
        found, mode = _FORMATS.get(stat.S_IFMT(raw), "file"), stat.S_IMODE(raw)
    else:
        found, mode = _LETTERS.get(kind, "file"), int(permissions, 8)
    return FileInfo(
        name=name,
        kind=found,
        size=int(size),
        mode=mode,
        mtime=float(mtime),
        uid=int(uid),
        gid=int(gid),
        target=target if found == "symlink" else None,
    )
