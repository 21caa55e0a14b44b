"""Listening on loopback, with a task for each connection."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Coroutine
from typing import Any

__all__ = ["Listener"]

BACKLOG = 1024
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
PAUSE_S = 0.1

Serve = Callable[[socket.socket], Coroutine[Any, Any, None]]


class Listener:
    """A TCP socket that listens until it is closed."""

    def __init__(self, serve: Serve, *, host: str = "127.0.0.1", port: int = 0) -> None:
        """Bind and begin to accept; an event loop must run.

        Args:
            serve: Run as a task for each connection; gets its non-blocking socket and owns it.
            host: A loopback address.
            port: 0 takes a free one.

        Raises:
            OSError: The address is taken.
        """
        self._serve = serve
        self._socket = socket.create_server((host, port), backlog=BACKLOG)
        self._socket.setblocking(False)
        self.host, self.port = self._socket.getsockname()[:2]
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepting = asyncio.get_running_loop().create_task(
            self._accept(), name=f"accept on {self.address}"
        )

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"{self.host}:{self.port}"

    async def close(self) -> None:
        """Stop listening and end every connection."""
        self._accepting.cancel()
        # A task that never took its first step would leave its socket open.
        await asyncio.sleep(0)
        tasks = [self._accepting, *self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._socket.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(self._socket)
            except OSError as error:
                # A visitor that is gone already is no reason to stop; a full table is one to rest.
                await asyncio.sleep(PAUSE_S if error.errno in EXHAUSTED else 0)
                continue
            task = loop.create_task(self._serve(connection), name=f"visitor of {self.address}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
