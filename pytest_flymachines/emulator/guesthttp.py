"""One HTTP request to a program in a machine, made by the emulator itself."""

from __future__ import annotations

import asyncio
import socket
import ssl

import h11

__all__ = ["HttpError", "get"]


class HttpError(Exception):
    """What the program answered is no HTTP, or too much of it."""


async def get(
    connection: socket.socket,
    *,
    host: str,
    path: str,
    tls: ssl.SSLContext | None = None,
    headers: dict[str, str] | None = None,
    limit: int,
) -> tuple[int, bytes]:
    """Status and body of a GET request; the connection is closed in any case.

    Args:
        connection: Connected to the program.
        host: For the Host header, and the name that a certificate is asked for.
        path: With the query, if any.
        tls: How to speak TLS; None speaks none.
        headers: More of them.
        limit: The most bytes of a body.

    Raises:
        HttpError: It is no HTTP, or the body is longer.
        OSError: The connection broke.
    """
    name = host.partition(":")[0] if tls else None
    reader, writer = await asyncio.open_connection(sock=connection, ssl=tls, server_hostname=name)
    http = h11.Connection(h11.CLIENT)
    wanted = {"Host": host, "Connection": "close", **(headers or {})}
    try:
        head = http.send(h11.Request(method="GET", target=path, headers=list(wanted.items())))
        writer.write((head or b"") + (http.send(h11.EndOfMessage()) or b""))
        status, body = 0, bytearray()
        while True:
            match event := http.next_event():
                case h11.NEED_DATA:
                    http.receive_data(await reader.read(65536))
                case h11.Response():
                    status = event.status_code
                case h11.Data():
                    body += event.data
                    if len(body) > limit:
                        raise HttpError(f"the answer is longer than {limit} bytes")
                case h11.EndOfMessage():
                    return status, bytes(body)
                case h11.ConnectionClosed():
                    raise HttpError("the connection was closed before the answer")
    except h11.ProtocolError as error:
        raise HttpError(f"no HTTP: {error}") from error
    finally:
        writer.close()
