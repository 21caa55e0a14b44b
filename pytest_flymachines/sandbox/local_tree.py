"""Trees of this computer, as tar streams and back."""

# A tree has thousands of entries, and a Path costs more than the system call:
# ruff: noqa: PTH101, PTH102, PTH105, PTH114, PTH115, PTH116, PTH118, PTH123, PTH211

from __future__ import annotations

import os
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pytest_flymachines.errors import FlyMachinesError
from pytest_flymachines.sandbox.patterns import excluded
from pytest_flymachines.sandbox.tar import END, header, members, padding

__all__ = ["Entry", "pack", "scan", "unpack"]

_PIECE_BYTES = 256 * 1024


@dataclass(frozen=True)
class Entry:
    """Something that is to be packed.

    Attributes:
        path: Where it is.
        name: Relative to the top, which is `.` itself.
        status: Of itself, if it is a symlink.
    """

    path: str
    name: str
    status: os.stat_result


def scan(top: str, exclude: Sequence[str]) -> list[Entry]:
    """A directory and what is below it, depth first; sockets and devices left out.

    That order matters to tar, which sets a directory's time once it leaves it.
    """
    found = []
    pending = [Entry(top, ".", os.stat(top))]
    while pending:
        entry = pending.pop()
        found.append(entry)
        if stat.S_ISDIR(entry.status.st_mode):
            pending += _inside(entry, exclude)
    return found


def _inside(directory: Entry, exclude: Sequence[str]) -> list[Entry]:
    """Entries of a directory, the last name first."""
    prefix = "" if directory.name == "." else f"{directory.name}/"
    entries = []
    with os.scandir(directory.path) as names:
        for name in sorted(names, key=lambda name: name.name, reverse=True):
            entry = Entry(name.path, prefix + name.name, name.stat(follow_symlinks=False))
            if _type_of(entry.status.st_mode) and not excluded(entry.name, exclude):
                entries.append(entry)
    return entries


def _type_of(mode: int) -> bytes | None:
    return {
        stat.S_IFREG: tarfile.REGTYPE,
        stat.S_IFDIR: tarfile.DIRTYPE,
        stat.S_IFLNK: tarfile.SYMTYPE,
        stat.S_IFIFO: tarfile.FIFOTYPE,
    }.get(stat.S_IFMT(mode))


def pack(entries: Iterable[Entry]) -> Iterator[bytes]:
    """A tar stream; owners are left out, so that the machine's user owns what arrives."""
    for entry in entries:
        info = tarfile.TarInfo(entry.name)
        info.mode = stat.S_IMODE(entry.status.st_mode)
        info.mtime = entry.status.st_mtime
        info.type = _type_of(entry.status.st_mode) or tarfile.REGTYPE
        if info.isreg():
            yield from _file(entry.path, info)
        else:
            if info.issym():
                info.linkname = os.readlink(entry.path)
            yield header(info)
    yield END


def _file(path: str, info: tarfile.TarInfo) -> Iterator[bytes]:
    with open(path, "rb", buffering=0) as file:
        left = info.size = os.fstat(file.fileno()).st_size
        yield header(info)
        while left:
            piece = file.read(min(left, _PIECE_BYTES))
            if not piece:
                raise FlyMachinesError(f"{path} became shorter while it was uploaded")
            left -= len(piece)
            yield piece
    yield padding(info.size)


def unpack(
    stream: Iterable[bytes],
    target: Path,
    exclude: Sequence[str],
    progress: Callable[[int], None],
) -> None:
    """Unpack a tar stream of a directory (first entry `.`) or of a single file.

    Everything is unpacked beside the target first. Then it takes the target's name, or its
    entries replace those of the directory that is there.

    Raises:
        IsADirectoryError: The stream is a single file, and the target a directory.
        FlyMachinesError: The stream is damaged, or an entry would lie outside of the target.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        single = _fill(stage, stream, exclude, progress)
        if single is not None:
            (stage / single).replace(target)
        elif target.is_dir():
            _merge(stage, target)
        else:
            stage.replace(target)
    except tarfile.TarError as error:
        raise FlyMachinesError(f"the tree for {target} arrived damaged: {error}") from error
    finally:
        _unlock(stage)
        shutil.rmtree(stage, ignore_errors=True)


def _fill(
    stage: Path, stream: Iterable[bytes], exclude: Sequence[str], progress: Callable[[int], None]
) -> str | None:
    """Make all entries; the name of the only one, if the stream is a single file."""
    directories: dict[str, tarfile.TarInfo] = {}
    single = None
    for member, content in members(stream):
        name = str(PurePosixPath(member.name))
        if name != "." and not directories:
            single = name
        if name != "." and single is None and excluded(name, exclude):
            continue
        path = _place(stage, name, directories)
        if member.isdir():
            if name != ".":
                os.mkdir(path, 0o700)
            directories[name] = member
        else:
            _make(path, member, content, stage, progress)
    for name, member in reversed(directories.items()):
        path = os.path.join(stage, name)
        os.chmod(path, member.mode & 0o7777)
        os.utime(path, (member.mtime, member.mtime))
    return single


def _place(stage: Path, name: str, directories: dict[str, tarfile.TarInfo]) -> str:
    """Where an entry goes: only into directories that were made for this stream."""
    parts = name.split("/")
    parent = "/".join(parts[:-1]) or "."
    if (
        ".." in parts
        or name.startswith("/")
        or (directories and name != "." and parent not in directories)
    ):
        raise FlyMachinesError(f"the tree has an entry {name!r} that would lie outside of it")
    return os.path.join(stage, name)


def _make(
    path: str,
    member: tarfile.TarInfo,
    content: Iterator[bytes],
    stage: Path,
    progress: Callable[[int], None],
) -> None:
    if member.isreg():
        with open(path, "xb", buffering=0) as file:
            for piece in content:
                view = memoryview(piece)
                while view:
                    view = view[file.write(view) :]
                progress(len(piece))
            os.fchmod(file.fileno(), member.mode & 0o7777)
    elif member.issym():
        os.symlink(member.linkname, path)
    elif member.islnk():
        os.link(
            os.path.join(stage, str(PurePosixPath(member.linkname))), path, follow_symlinks=False
        )
        return
    elif member.isfifo():
        os.mkfifo(path, member.mode & 0o7777)
    else:  # a device, which an ordinary user cannot make
        return
    os.utime(path, (member.mtime, member.mtime), follow_symlinks=False)


def _merge(source: Path, target: Path) -> None:
    """Move the entries of one directory into another; directories on both sides are merged."""
    for entry in list(os.scandir(source)):
        place = target / entry.name
        directory = entry.is_dir(follow_symlinks=False)
        if place.is_dir() and not place.is_symlink():
            if directory:
                status = entry.stat()  # before its entries move away
                _merge(Path(entry.path), place)
                place.chmod(stat.S_IMODE(status.st_mode))
                os.utime(place, ns=(status.st_atime_ns, status.st_mtime_ns))
                continue
            shutil.rmtree(place)
        elif directory:
            place.unlink(missing_ok=True)
        os.replace(entry.path, place)


def _unlock(stage: Path) -> None:
    """Let what is left be removed, whatever the modes of the directories."""
    for directory, names, _ in os.walk(stage):
        for name in names:
            path = os.path.join(directory, name)
            if not os.path.islink(path):
                os.chmod(path, 0o700)
