"""`.../agent/forward/{port}`: a WebSocket into a TCP port of the machine."""

from __future__ import annotations

import socket

from .wire import BadRequest

CONNECT_S = 10.0


def forwarded_port(path: list[str]) -> int | None:
    """The port that a path asks for; None if it is not about a forward.

    Raises:
        BadRequest: It is no port.
    """
    match path:
        case ["v1", "apps", _, "machines", _, "agent", "forward", port]:
            if port.isdecimal() and 0 < int(port) < 65536:
                return int(port)
            raise BadRequest(f"forward/{port}: expected a port from 1 to 65535")
    return None


def connect(port: int, own_address: str) -> socket.socket:
    """A connection to a port of this machine's loopback.

    A machine that shares its loopback with others has an address of its own there, on which
    the agent listens; that is tried first.

    Raises:
        OSError: Nothing listens on it.
    """
    own = own_address.removeprefix("::ffff:")
    hosts = dict.fromkeys([own if own.startswith("127.") else "127.0.0.1", "127.0.0.1", "::1"])
    errors = []
    for host in hosts:
        try:
            stream = socket.create_connection((host, port), timeout=CONNECT_S)
        except OSError as error:
            errors.append(error)
        else:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return stream
    raise errors[0]
