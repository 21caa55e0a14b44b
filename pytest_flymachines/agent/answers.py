"""What the agent answers, and bytes in its JSON."""

from __future__ import annotations

import base64

import msgspec

from pytest_flymachines.sandbox.channel import FileInfo, FileKind, ProcessUpdate

__all__ = ["Entry", "Listing", "Made", "Names", "Update", "pack", "unpack"]


class Base64(msgspec.Struct):
    """Bytes that are no UTF-8."""

    base64: str


Packed = str | Base64


def pack(data: bytes) -> str | dict[str, str]:
    """Bytes as the agent's JSON has them: text where they are UTF-8, else `{"base64": ...}`."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def unpack(value: Packed) -> bytes:
    """The bytes of a packed value."""
    return value.encode() if isinstance(value, str) else base64.b64decode(value.base64)


class Update(msgspec.Struct):
    """The state of a process."""

    id: str
    pid: int
    running: bool
    exit_code: int | None
    timed_out: bool
    stdout: Packed
    stderr: Packed
    stdout_size: int
    stderr_size: int
    stdout_truncated: bool
    stderr_truncated: bool
    duration_s: float

    def to_update(self) -> ProcessUpdate:
        """The same as the channel's type."""
        return ProcessUpdate(
            id=self.id,
            pid=self.pid,
            running=self.running,
            exit_code=self.exit_code,
            timed_out=self.timed_out,
            stdout=unpack(self.stdout),
            stderr=unpack(self.stderr),
            stdout_size=self.stdout_size,
            stderr_size=self.stderr_size,
            duration_s=self.duration_s,
            stdout_truncated=self.stdout_truncated,
            stderr_truncated=self.stderr_truncated,
        )


class Entry(msgspec.Struct):
    """A directory entry."""

    name: Packed
    kind: FileKind
    size: int
    mode: int
    mtime: float
    uid: int
    gid: int
    target: Packed | None = None

    def to_info(self) -> FileInfo:
        """The same as the channel's type."""
        return FileInfo(
            name=_text(self.name),
            kind=self.kind,
            size=self.size,
            mode=self.mode,
            mtime=self.mtime,
            uid=self.uid,
            gid=self.gid,
            target=None if self.target is None else _text(self.target),
        )


class Listing(msgspec.Struct):
    """The entries of a directory or below it."""

    entries: list[Entry]


class Names(msgspec.Struct):
    """The names of checkpoints."""

    checkpoints: list[Packed]


class Made(msgspec.Struct):
    """A new workspace."""

    path: Packed


def _text(name: Packed) -> str:
    return unpack(name).decode("utf-8", "surrogateescape")
