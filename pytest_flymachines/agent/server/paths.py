"""Where paths of requests lead, and what is there."""

from __future__ import annotations

import os
import stat
from typing import Any

from .wire import BadRequest, pack, unpack

_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFBLK: "block",
    stat.S_IFCHR: "char",
}


class Paths:
    """Resolves relative paths from the base directory, the workspace."""

    def __init__(self, base: bytes) -> None:
        self.base = base

    def resolve(self, path: bytes) -> bytes:
        """An absolute path; an empty one is the base."""
        if b"\0" in path:
            raise BadRequest(f"path {pack(path)!r}: expected one without NUL")
        return os.path.join(self.base, path) if path else self.base

    def of(self, body: dict[str, Any], name: str = "path") -> bytes:
        """The path in a field of a JSON body."""
        return self.resolve(unpack(body.get(name), name))


def describe(name: bytes, path: bytes, status: os.stat_result) -> dict[str, Any]:
    """A directory entry as JSON."""
    kind = _KINDS.get(stat.S_IFMT(status.st_mode), "file")
    entry: dict[str, Any] = {
        "name": pack(name),
        "kind": kind,
        "size": status.st_size,
        "mode": stat.S_IMODE(status.st_mode),
        "mtime": status.st_mtime,
        "uid": status.st_uid,
        "gid": status.st_gid,
    }
    if kind == "symlink":
        entry["target"] = pack(os.readlink(path))
    return entry
