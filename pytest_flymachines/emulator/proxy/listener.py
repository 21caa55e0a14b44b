"""Listening, with a task for each connection."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Coroutine
from typing import Any

__all__ = ["Listener", "dialled"]

BACKLOG = 1024
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
PAUSE_S = 0.1

Serve = Callable[[socket.socket], Coroutine[Any, Any, None]]


def dialled(host: str) -> str:
    """The address at which this computer itself reaches what listens on `host`."""
    return "127.0.0.1" if host == "0.0.0.0" else host


class Listener:
    """A socket that listens until it is closed."""

    def __init__(self, serve: Serve, listening: socket.socket) -> None:
        """Begin to accept; an event loop must run.

        Args:
            serve: Run as a task for each connection; gets its non-blocking socket and owns it.
            listening: From now on owned by this.
        """
        self._serve = serve
        self._socket = listening
        self._socket.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._accept)
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    @classmethod
    def at(cls, serve: Serve, host: str, port: int = 0) -> Listener:
        """Listen on TCP.

        Args:
            serve: See above.
            host: The address.
            port: 0 takes a free one.

        Raises:
            OSError: The address is taken.
        """
        return cls(serve, socket.create_server((host, port), backlog=BACKLOG))

    @property
    def where(self) -> tuple[str, int]:
        """Host and port, of one that listens on TCP."""
        host, port = self._socket.getsockname()[:2]
        return dialled(host), port

    @property
    def address(self) -> str:
        """The same as `host:port`."""
        return "{}:{}".format(*self.where)

    def stop(self) -> None:
        """Stop listening; connections go on."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._socket)
            self._socket.close()

    async def close(self) -> None:
        """Stop listening, at once, and end every connection."""
        self.stop()
        # A task that never took its first step would leave its connection open.
        await asyncio.sleep(0)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self) -> None:
        for _ in range(BACKLOG):
            try:
                connection, _ = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in EXHAUSTED:
                    self._loop.remove_reader(self._socket)
                    self._loop.call_later(PAUSE_S, self._resume)
                    return
                continue  # this visitor is gone already
            connection.setblocking(False)
            task = self._loop.create_task(self._serve(connection), name="visitor")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _resume(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._socket, self._accept)
