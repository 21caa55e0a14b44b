"""What a process wrote: the first part in memory, the rest in a file without a name."""

from __future__ import annotations

import os

from .names import new_file

MEMORY_BYTES = 128 * 1024
LIMIT_BYTES = 1 << 30


class Spool:
    """A growing sequence of bytes that can be read from any offset. Not thread-safe.

    Attributes:
        size: Bytes kept.
        truncated: Bytes were dropped, because of `limit` or because the disk was full.
    """

    def __init__(self, directory: str, limit: int = LIMIT_BYTES) -> None:
        self.size = 0
        self.truncated = False
        self._directory = directory
        self._limit = limit
        self._memory = bytearray()
        self._fd = -1

    @property
    def spilled(self) -> bool:
        """Whether a part is on disk."""
        return self._fd >= 0

    def append(self, data: bytes) -> bool:
        """Keep as much of `data` as there is room for; once it was too much, nothing more."""
        if self.truncated:
            return True
        if self.size + len(data) > self._limit:
            data = data[: self._limit - self.size]
            self.truncated = True
        if self._fd < 0 and self.size + len(data) <= MEMORY_BYTES:
            self._memory += data
            self.size += len(data)
        elif data:
            self._append_to_file(data)
        return True

    def _append_to_file(self, data: bytes) -> None:
        try:
            if self._fd < 0:
                self._fd = _unnamed_file(self._directory)
            start = self.size - len(self._memory)
            while data:
                written = os.pwrite(self._fd, data, start)
                start += written
                self.size += written
                data = data[written:]
        except OSError:
            self.truncated = True

    def read(self, offset: int, size: int) -> bytes:
        """At most `size` bytes from `offset`; fewer at the end of the memory part."""
        if offset < len(self._memory):
            return bytes(self._memory[offset : offset + size])
        size = min(size, self.size - offset)
        return os.pread(self._fd, size, offset - len(self._memory)) if size > 0 else b""

    def read_all(self, offset: int = 0, limit: int = LIMIT_BYTES) -> bytes:
        """Everything from `offset`, but at most `limit` bytes."""
        data = b""
        while len(data) < limit and (more := self.read(offset + len(data), limit - len(data))):
            data += more
        return data

    def close(self) -> None:
        """Give the file's room back; `read` must not be called again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self.size = 0
        self._memory = bytearray()


def _unnamed_file(directory: str) -> int:
    try:
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:  # overlay and network file systems may not have O_TMPFILE
        fd, path = new_file(os.fsencode(directory))
        os.unlink(path)
        return fd
