"""Files and directories over HTTP, one system call or few for each request."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from .globbing import walk
from .messages import Request, Response
from .paths import Paths, describe
from .wire import BadRequest, field, unpack
from .writing import write_all, write_file

PIECE_BYTES = 256 * 1024
# what 64 bits hold
_TIME = re.compile(rb"-?[0-9]{1,18}|[1-8][0-9]{18}")


class FileApi:
    """The handlers of `POST .../agent/files/*`; paths come in the JSON body."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    def read(self, request: Request) -> Response:
        """`{"path", "offset", "size"}`: the content as it is.

        The header `x-file-id` changes when another file has taken the name.
        """
        body = request.json()
        path = self._paths.of(body)
        offset = field(body, "offset", int, 0)
        size = field(body, "size", int, None)
        if offset < 0 or (size or 0) < 0:
            raise BadRequest(f"offset={offset}, size={size}: expected numbers from 0")
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        status = os.fstat(fd)
        content = _content(fd, path, offset, size)
        return Response(content, headers={"x-file-id": f"{status.st_dev}-{status.st_ino}"})

    def write(self, request: Request) -> Response:
        """`PUT .../agent/files?path=&mode=&parents=1&mtime_ns=`: the body becomes the file."""
        query = request.query
        path = self._paths.resolve(query.get("path", b""))
        mode = query.get("mode")
        if mode is not None and not (mode.isdigit() and int(mode) <= 0o7777):
            raise BadRequest(f"mode={mode!r}: expected permission bits as a decimal number")
        mtime_ns = query.get("mtime_ns")
        if mtime_ns is not None and not _TIME.fullmatch(mtime_ns):
            raise BadRequest(f"mtime_ns={mtime_ns!r}: expected nanoseconds since 1970")
        size = write_file(
            path,
            request.pieces(),
            mode=None if mode is None else int(mode),
            parents=query.get("parents") == b"1",
            mtime_ns=None if mtime_ns is None else int(mtime_ns),
        )
        return Response({"size": size})

    def append(self, request: Request) -> Response:
        """The body is added to the file of the parameter `path`."""
        data = request.data()
        path = self._paths.resolve(request.query.get("path", b""))
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            write_all(fd, data)
        finally:
            os.close(fd)
        return Response({"size": len(data)})

    def stat(self, request: Request) -> Response:
        """`{"path", "follow"}`: what is there."""
        body = request.json()
        path = self._paths.of(body)
        status = (os.stat if field(body, "follow", bool, True) else os.lstat)(path)
        return Response(describe(os.path.basename(path.rstrip(b"/")) or b"/", path, status))

    def listdir(self, request: Request) -> Response:
        """`{"path"}`: the entries of a directory by name; symlinks are not followed."""
        path = self._paths.of(request.json())
        entries = []
        for name in sorted(os.listdir(path)):
            full = os.path.join(path, name)
            with suppress(FileNotFoundError):  # gone since the listing
                entries.append(describe(name, full, os.lstat(full)))
        return Response({"entries": entries})

    def walk(self, request: Request) -> Response:
        """`{"path", "patterns"}`: everything below a directory, or what the glob's parts match."""
        body = request.json()
        path = self._paths.of(body)
        patterns = field(body, "patterns", list, None)
        parts = None if patterns is None else [unpack(part, "patterns") for part in patterns]
        if parts is not None and (not parts or any(b"/" in part or not part for part in parts)):
            raise BadRequest(f"patterns={patterns!r}: expected the parts of a glob, without /")
        entries = []
        for name in sorted(walk(path, parts)):
            full = os.path.join(path, name)
            with suppress(FileNotFoundError, NotADirectoryError):
                entries.append(describe(name, full, os.lstat(full)))
        return Response({"entries": entries})

    def mkdir(self, request: Request) -> Response:
        """`{"path", "mode", "parents", "exist_ok"}`."""
        body = request.json()
        path = self._paths.of(body)
        mode = field(body, "mode", int, 0o777)
        try:
            os.mkdir(path, mode)
        except FileNotFoundError:
            if not field(body, "parents", bool, False):
                raise
            os.makedirs(os.path.dirname(path.rstrip(b"/")) or b"/", exist_ok=True)
            os.mkdir(path, mode)
        except FileExistsError:
            if not (field(body, "exist_ok", bool, False) and os.path.isdir(path)):
                raise
        return Response({})

    def remove(self, request: Request) -> Response:
        """`{"path", "recursive", "missing_ok"}`."""
        body = request.json()
        path = self._paths.of(body)
        try:
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                os.unlink(path)
            elif field(body, "recursive", bool, False):
                import shutil

                shutil.rmtree(path)
            else:
                os.rmdir(path)
        except FileNotFoundError:
            if not field(body, "missing_ok", bool, False):
                raise
        return Response({})

    def rename(self, request: Request) -> Response:
        """`{"source", "target"}`: replaces a file, as rename(2) does."""
        body = request.json()
        os.replace(self._paths.of(body, "source"), self._paths.of(body, "target"))
        return Response({})

    def chmod(self, request: Request) -> Response:
        """`{"path", "mode"}`."""
        body = request.json()
        os.chmod(self._paths.of(body), _mode(body, 0o644))
        return Response({})

    def symlink(self, request: Request) -> Response:
        """`{"path", "target"}`: `path` becomes a symlink to `target`, which is taken as it is."""
        body = request.json()
        os.symlink(unpack(body.get("target"), "target"), self._paths.of(body))
        return Response({})

    def touch(self, request: Request) -> Response:
        """`{"path", "mode", "exist_ok"}`: makes an empty file, or sets its times to now."""
        body = request.json()
        path = self._paths.of(body)
        try:
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
            os.close(os.open(path, flags, _mode(body, 0o666)))
        except FileExistsError:
            if not field(body, "exist_ok", bool, True):
                raise
            os.utime(path)
        return Response({})


def _mode(body: dict[str, Any], default: int) -> int:
    mode = field(body, "mode", int, default)
    if not 0 <= mode <= 0o7777:
        raise BadRequest(f"mode={mode}: expected permission bits up to {0o7777} (0o7777)")
    return int(mode)


def _content(fd: int, path: bytes, offset: int, size: int | None) -> Iterator[bytes]:
    """At most `size` bytes from `offset`; closes `fd`. Files of /proc have no size to go by."""
    try:
        if offset:
            os.lseek(fd, offset, os.SEEK_SET)
        while size is None or size > 0:
            piece = os.read(fd, PIECE_BYTES if size is None else min(size, PIECE_BYTES))
            if not piece:
                return
            if size is not None:
                size -= len(piece)
            yield piece
    except OSError as error:
        raise type(error)(error.errno, error.strerror, path) from error
    finally:
        os.close(fd)
