"""Writing a file so that nobody sees half of it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from contextlib import suppress

from .names import new_file

# A rename onto a mount point says EBUSY; one out of a directory that may not be written, or of
# one that is no real directory (/proc), never comes to that.
_WRITE_IN_PLACE = {errno.EBUSY, errno.EXDEV}
# What is looked at for zeros at once: small enough for holes between data, large enough to be fast.
_PART_BYTES = 16 * 1024
_ZEROS = bytes(_PART_BYTES)
_NO_TEMPORARY_FILE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT}


def write_file(
    path: bytes,
    pieces: Iterable[bytes],
    *,
    mode: int | None,
    parents: bool,
    mtime_ns: int | None = None,
) -> int:
    """Replace a file by `pieces`, under a temporary name first; number of bytes.

    An exception of `pieces` leaves what was there. `mode` None keeps that of the file, else
    0o644; `mtime_ns` None is now. A symlink is followed. What cannot be replaced by a rename is
    written in place.
    """
    # realpath alone would accept a loop of symlinks, and resolve more than the kernel does
    path = os.path.realpath(path) if os.path.islink(path) else path
    old = _status(path)
    directory = os.path.dirname(path) or b"/"
    if parents:
        os.makedirs(directory, exist_ok=True)
    if old and not stat.S_ISREG(old.st_mode):
        return _write_in_place(path, pieces, mode, mtime_ns)
    try:
        fd, temporary = new_file(directory)
    except OSError as error:
        if old and error.errno in _NO_TEMPORARY_FILE:
            return _write_in_place(path, pieces, mode, mtime_ns)
        raise type(error)(error.errno, error.strerror, path) from error
    try:
        size = _fill(fd, path, pieces, new=True)
        if old:
            with suppress(OSError):
                os.fchown(fd, old.st_uid, old.st_gid)
        os.fchmod(fd, mode if mode is not None else stat.S_IMODE(old.st_mode) if old else 0o644)
        _set_time(fd, mtime_ns)
        _put(fd, temporary, path, mtime_ns)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    finally:
        os.close(fd)
    return size


def _status(path: bytes) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _fill(fd: int, path: bytes, pieces: Iterable[bytes], *, new: bool = False) -> int:
    """Write pieces, those of a new file with holes."""
    size = 0
    write = write_with_holes if new else write_all
    for piece in pieces:
        try:
            write(fd, piece)
        except OSError as error:
            raise type(error)(error.errno, error.strerror, path) from error
        size += len(piece)
    if new:
        os.ftruncate(fd, size)
    return size


def _put(fd: int, temporary: bytes, path: bytes, mtime_ns: int | None) -> None:
    """Give the temporary file its name, or its content to the file of that name."""
    try:
        os.replace(temporary, path)
    except OSError as error:
        if error.errno not in _WRITE_IN_PLACE:
            raise type(error)(error.errno, error.strerror, path) from error
        os.lseek(fd, 0, os.SEEK_SET)
        _write_in_place(path, iter(lambda: os.read(fd, 1 << 20), b""), None, mtime_ns)
        os.unlink(temporary)


def _write_in_place(
    path: bytes, pieces: Iterable[bytes], mode: int | None, mtime_ns: int | None
) -> int:
    """Write into what is there; the pieces come first, so that damaged ones change nothing."""
    data = list(pieces)
    # a FIFO that nobody reads is an error, not something to wait for
    fd = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        os.set_blocking(fd, True)
        size = _fill(fd, path, data)
        if mode is not None:
            os.fchmod(fd, mode)
        _set_time(fd, mtime_ns)
    finally:
        os.close(fd)
    return size


def _set_time(fd: int, mtime_ns: int | None) -> None:
    if mtime_ns is not None:
        os.utime(fd, ns=(mtime_ns, mtime_ns))


def write_all(fd: int, data: bytes) -> None:
    """Write until nothing is left."""
    done = os.write(fd, data) if data else 0
    while done < len(data):
        done += os.write(fd, memoryview(data)[done:])


def write_with_holes(fd: int, data: bytes) -> None:
    """Write to a new file, and pass over what is nothing but zeros: it is a hole then.

    The file has to be given its size afterwards. A file system without holes fills them itself.
    """
    size = len(data)
    done = 0
    for start in range(0, size, _PART_BYTES):
        end = min(start + _PART_BYTES, size)
        # one byte says it of nearly everything, and a copy of the part would take its time
        if data[start] or data[end - 1] or data[start:end] != _ZEROS[: end - start]:
            continue
        if done < start:
            write_all(fd, data[done:start])
        os.lseek(fd, end - start, os.SEEK_CUR)
        done = end
    if done < size:
        write_all(fd, data[done:] if done else data)
