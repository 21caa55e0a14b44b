"""PostgreSQL's way into TLS: the client asks for it before the handshake.

Source: https://www.postgresql.org/docs/current/protocol-flow.html, "SSL Session Encryption".
"""

from __future__ import annotations

import asyncio
import socket
import struct

__all__ = ["negotiate"]

SSL_REQUEST = 80877103
GSS_REQUEST = 80877104
MESSAGE = b"SFATAL\0VFATAL\0C08P01\0Mthis port takes TLS connections only\0\0"


async def negotiate(visitor: socket.socket) -> None:
    """Agree to TLS; afterwards the client begins the handshake.

    Raises:
        ConnectionError: It wants something else, and was told no, or it has gone.
    """
    loop = asyncio.get_running_loop()
    while True:
        request = b""
        while len(request) < 8:
            piece = await loop.sock_recv(visitor, 8 - len(request))
            if not piece:
                raise ConnectionResetError("the client went away before it asked for TLS")
            request += piece
        length, code = struct.unpack("!II", request)
        if (length, code) == (8, SSL_REQUEST):
            await loop.sock_sendall(visitor, b"S")
            return
        if (length, code) != (8, GSS_REQUEST):
            answer = b"E" + struct.pack("!I", len(MESSAGE) + 4) + MESSAGE
            await loop.sock_sendall(visitor, answer)
            raise ConnectionAbortedError("the client did not ask for TLS")
        await loop.sock_sendall(visitor, b"N")
