"""Reading what a program writes: to its end, without holding more than a limit."""

from __future__ import annotations

import asyncio
import contextlib
import os

__all__ = ["LIMIT_BYTES", "OutputPipe"]

LIMIT_BYTES = 32 * 1024 * 1024
"""What is kept of one stream; the rest is read, so that the program goes on, and dropped."""

_PIECE_BYTES = 256 * 1024


class OutputPipe:
    """A pipe: its writing end is for a program, what comes out of the other is kept here.

    Attributes:
        write_fd: To be handed to the program, and then closed by whoever did.
    """

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self._loop = asyncio.get_running_loop()
        self._read_fd, self.write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)
        self._pieces: list[bytes] = []
        self._room = limit_bytes
        self._at_end = asyncio.Event()
        self._loop.add_reader(self._read_fd, self._on_readable)

    async def finished(self) -> None:
        """Until every holder of the writing end has closed it."""
        await self._at_end.wait()

    def content(self) -> bytes:
        """What has come out so far, up to the limit."""
        return b"".join(self._pieces)

    def close(self) -> None:
        """Stop reading."""
        if not self._at_end.is_set():
            self._loop.remove_reader(self._read_fd)
            os.close(self._read_fd)
            self._at_end.set()

    def forget(self) -> None:
        """Read on, keep nothing: nobody asks for this output any more."""
        self._pieces.clear()
        self._room = 0

    def _on_readable(self) -> None:
        with contextlib.suppress(BlockingIOError):
            piece = os.read(self._read_fd, _PIECE_BYTES)
            if not piece:
                self.close()
            elif self._room > 0:
                self._pieces.append(piece[: self._room])
                self._room -= len(piece)
