"""HTTP: the only package that imports httpx and httpcore.

`Http` sends a request through a `Transport` and reads the answer. Transports wrap one another
(record, retry, pace); the innermost is a `PoolTransport`, which owns the sockets.
"""

from httpx import (
    URL,
    ByteStream,
    Client,
    ConnectError,
    ConnectTimeout,
    Cookies,
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

from pytest_flymachines._http.pool import PoolTransport
from pytest_flymachines._http.sender import Http, Param

__all__ = [
    "URL",
    "ByteStream",
    "Client",
    "ConnectError",
    "ConnectTimeout",
    "Cookies",
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
