"""Listening sockets: opened before anything slow is imported, so that clients find the port."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from .log import log

if TYPE_CHECKING:
    from .reactor import Reactor

BACKLOG = 512
STACK_BYTES = 512 * 1024
# After running out of descriptors or threads.
PAUSE_S = 0.1
READ = 1  # EPOLLIN


def open_listener(address: str) -> socket.socket:
    """Listen on `:PORT` (every address), `HOST:PORT` or `[IPV6]:PORT`.

    Raises:
        ValueError: It is none of these.
        OSError: The address is taken or not this machine's.
    """
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"-listen {address!r}: expected :PORT, HOST:PORT or [IPV6]:PORT")
    if not host and socket.has_dualstack_ipv6():
        return socket.create_server(
            ("", int(port)), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, int(port)), family=family, backlog=BACKLOG)


class Acceptor:
    """Gives each accepted connection a thread of its own."""

    def __init__(
        self, reactor: Reactor, listener: socket.socket, serve: Callable[[socket.socket], None]
    ) -> None:
        self._reactor = reactor
        self._listener = listener
        self._serve = serve
        listener.setblocking(False)

    def start(self) -> None:
        """Accept from now on."""
        self._reactor.watch(self._listener.fileno(), READ, self._accept)

    def _accept(self) -> None:
        try:
            while True:
                self._give_thread(self._listener.accept()[0])
        except (BlockingIOError, ConnectionAbortedError):
            return
        except (OSError, RuntimeError) as error:  # no descriptors or no threads left
            log(f"cannot accept a connection: {error}")
            self._reactor.unwatch(self._listener.fileno())
            self._reactor.call_later(PAUSE_S, self.start)

    def _give_thread(self, sock: socket.socket) -> None:
        try:
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()
        except RuntimeError:
            sock.close()
            raise
