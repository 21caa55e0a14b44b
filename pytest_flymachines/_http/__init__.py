"""HTTP: the only package that imports httpx and httpcore.

`Http` sends a request through a `Transport` and reads the answer. Transports wrap one another
(record, retry, pace); the innermost is a `PoolTransport`, which owns the sockets, and is loaded
when somebody wants one: a replay does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from httpx import (
    URL,
    ByteStream,
    Client,
    ConnectError,
    ConnectTimeout,
    Cookies,
    DecodingError,
    Headers,
    NetworkError,
    ProxyError,
    ReadError,
    ReadTimeout,
    RemoteProtocolError,
    Request,
    Response,
    SyncByteStream,
    TimeoutException,
    TransportError,
    WriteError,
)
from httpx import BaseTransport as Transport

from pytest_flymachines._http.sender import Http, Param

if TYPE_CHECKING:
    from pytest_flymachines._http.pool import PoolTransport

__all__ = [
    "URL",
    "ByteStream",
    "Client",
    "ConnectError",
    "ConnectTimeout",
    "Cookies",
    "DecodingError",
    "Headers",
    "Http",
    "NetworkError",
    "Param",
    "PoolTransport",
    "ProxyError",
    "ReadError",
    "ReadTimeout",
    "RemoteProtocolError",
    "Request",
    "Response",
    "SyncByteStream",
    "TimeoutException",
    "Transport",
    "TransportError",
    "WriteError",
]


def __getattr__(name: str) -> Any:
    if name != "PoolTransport":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pytest_flymachines._http.pool import PoolTransport

    return PoolTransport
