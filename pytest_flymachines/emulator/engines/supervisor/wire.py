"""Messages between the emulator, the spawner and the supervisors.

One message is one packet of a SOCK_SEQPACKET Unix socket: a JSON object and file descriptors.
A packet is limited by the socket's buffer, so a large object travels in a memfd.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from array import array
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["CLOSED", "Message", "close_all", "pair", "receive", "send"]

Message = dict[str, Any]

CLOSED: Message = {}
"""What `receive` gives once the other side is gone."""

_INLINE_BYTES = 32 * 1024
_IN_MEMFD = b"@"
_MAX_FDS = 16


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends, close-on-exec."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(sock: socket.socket, message: Message, fds: Sequence[int] = ()) -> None:
    """Send one message; the descriptors stay open here.

    Raises:
        BlockingIOError: The socket is non-blocking and full.
        OSError: The other side is gone.
    """
    body = json.dumps(message, separators=(",", ":")).encode()
    if len(body) <= _INLINE_BYTES:
        _send(sock, body, fds)
        return
    memory = os.memfd_create("message", os.MFD_CLOEXEC)
    try:
        with os.fdopen(memory, "wb", closefd=False) as file:
            file.write(body)
        _send(sock, _IN_MEMFD, [*fds, memory])
    finally:
        os.close(memory)


def receive(sock: socket.socket) -> tuple[Message, list[int]]:
    """The next message and its descriptors (close-on-exec), or `CLOSED` at the end."""
    # Not socket.recv_fds: it drops its flags, and the descriptors would reach programs.
    room = socket.CMSG_LEN(_MAX_FDS * array("i").itemsize)
    try:
        body, control, _, _ = sock.recvmsg(_INLINE_BYTES + 1, room, socket.MSG_CMSG_CLOEXEC)
    except ConnectionError:
        return CLOSED, []
    if not body:
        return CLOSED, []
    fds = [fd for _, _, data in control for fd in array("i", data)]
    if body == _IN_MEMFD:
        with os.fdopen(fds.pop(), "rb") as file:
            file.seek(0)
            body = file.read()
    message: Message = json.loads(body)
    return message, fds


def _send(sock: socket.socket, body: bytes, fds: Sequence[int]) -> None:
    control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))] if fds else []
    sock.sendmsg([body], control, socket.MSG_NOSIGNAL)


def close_all(fds: Iterable[int]) -> None:
    """Close descriptors; those that are closed already do not matter."""
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)
