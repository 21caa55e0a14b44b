"""`config.statics`: files of a machine that the proxy serves without asking its program.

On Fly too they come from a machine that runs, and a path without a file goes to its program.
Source: https://fly.io/docs/reference/configuration/#the-statics-sections.
"""

from __future__ import annotations

import asyncio
import mimetypes
import os
from collections.abc import Callable
from urllib.parse import unquote_to_bytes

from pytest_flymachines.emulator.config import Static
from pytest_flymachines.emulator.proxy.directory import Directory, MachineRecord
from pytest_flymachines.emulator.proxy.headers import Headers
from pytest_flymachines.emulator.proxy.message import Request, Responder

__all__ = ["answer", "guest_path"]

PIECE = 256 * 1024


async def answer(
    directory: Directory,
    machine: MachineRecord,
    request: Request,
    responder: Responder,
    answered: Callable[[Headers], Headers],
) -> bool:
    """Answer a request with a file, if it is for one.

    Args:
        directory: Opens the file.
        machine: That which would get the request.
        request: The request.
        responder: Where the answer goes.
        answered: Makes the headers of the answer into those for the visitor.

    Returns:
        Whether it was answered.

    Raises:
        ConnectionError: The visitor is gone.
    """
    if not machine.config.statics or request.method not in (b"GET", b"HEAD") or request.upgrade:
        return False
    path = guest_path(machine.config.statics, request.target)
    file = await directory.open_file(machine.id, path) if path else None
    if file is None:
        return False
    with file:
        left = os.fstat(file.fileno()).st_size
        kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
        headers: Headers = [
            (b"Content-Type", kind.encode()),
            (b"Content-Length", str(left).encode()),
        ]
        responder.begin(200, b"OK", answered(headers))
        while left and request.method == b"GET":
            piece = await asyncio.to_thread(file.read, min(left, PIECE))
            if not piece:
                raise ConnectionResetError(f"{path} was cut short meanwhile")
            left -= len(piece)
            responder.data(piece)
            await responder.flush()
        responder.end([])
        await responder.flush()
    return True


def guest_path(statics: list[Static], target: bytes) -> str:
    """Where in the machine the file of a request would be; empty if no prefix fits.

    Args:
        statics: Of the config; one with a bucket says nothing about files in the machine.
        target: Path and query.
    """
    path = os.fsdecode(unquote_to_bytes(target.partition(b"?")[0]))
    parts = path.split("/")[1:]
    if not path.startswith("/") or "\0" in path or {"", ".", ".."} & set(parts):
        return ""
    found = ""
    longest = -1
    for static in statics:
        prefix = [part for part in static.url_prefix.split("/") if part]
        fits = parts[: len(prefix)] == prefix and len(parts) > len(prefix) > longest
        if fits and not static.tigris_bucket:
            found = "/".join([static.guest_path.rstrip("/"), *parts[len(prefix) :]])
            longest = len(prefix)
    return found
