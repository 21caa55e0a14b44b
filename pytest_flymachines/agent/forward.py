"""Ports of this computer's loopback that lead into the machine, through the agent."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self

from pytest_flymachines.agent.server.relay import relay
from pytest_flymachines.agent.websocket import open_websocket
from pytest_flymachines.errors import AgentUnavailable

__all__ = ["PortForward"]


class PortForward:
    """Listens on a port of 127.0.0.1; each connection is carried by a WebSocket of its own.

    A context manager. A connection that the machine refuses is reset, and `error` says why.

    Attributes:
        host: 127.0.0.1.
        port: The port to connect to.
        error: Why the last connection was not carried, or None.
    """

    def __init__(self, url: str, path: str, headers: Mapping[str, str]) -> None:
        """Start listening.

        Args:
            url: Where the agent, or a proxy before it, answers.
            path: The forward's path there.
            headers: For the upgrade; hold the token, so they are not shown.
        """
        self.error: AgentUnavailable | None = None
        self._url = url
        self._path = path
        self._headers = headers
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.host: str
        self.port: int
        self.host, self.port = self._listener.getsockname()
        self._lock = threading.Lock()
        self._streams: set[socket.socket] = set()
        self._threads: set[threading.Thread] = set()
        self._acceptor = threading.Thread(
            target=self._accept, name=f"forward {self.port}", daemon=True
        )
        self._acceptor.start()

    def __repr__(self) -> str:
        return f"<PortForward 127.0.0.1:{self.port} to {self._url}{self._path}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening and cut what is connected."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept
        self._acceptor.join()
        self._listener.close()
        with self._lock:
            for stream in self._streams:
                with suppress(OSError):
                    stream.shutdown(socket.SHUT_RDWR)
            threads = list(self._threads)
        for thread in threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                stream, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._carry, args=(stream,), daemon=True)
            with self._lock:
                self._streams.add(stream)
                self._threads.add(thread)
            thread.start()

    def _carry(self, stream: socket.socket) -> None:
        try:
            with stream:
                try:
                    websocket = open_websocket(self._url, self._path, self._headers)
                except AgentUnavailable as error:
                    self.error = error
                    # a reset, not the end of an empty stream
                    no_linger = struct.pack("ii", 1, 0)
                    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_linger)
                    return
                with websocket.sock:
                    relay(websocket, stream)
        finally:
            with self._lock:
                self._streams.discard(stream)
                self._threads.discard(threading.current_thread())
