"""What a request is for, as its first line and `Host` say, and what of that is refused.

Sources: RFC 9112, 3.2 and 6.3; RFC 9113, 8.3.1.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from pytest_flymachines.emulator.proxy.headers import Headers, first
from pytest_flymachines.emulator.proxy.message import Problem

__all__ = ["check_framing", "origin_form"]

AUTHORITY = re.compile(r"([A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(:[0-9]*)?")


def origin_form(method: bytes, target: bytes, headers: Headers) -> tuple[bytes, Headers]:
    """The path and query of a request, and its headers with the host that it is really for.

    Raises:
        Problem: 400 for a target that is none, or a host that is none.
    """
    if not target.startswith(b"/") and not (method == b"OPTIONS" and target == b"*"):
        target, authority = _absolute(target)
        # The visitor takes us for his proxy, or names the host twice: this one counts.
        headers = [pair for pair in headers if pair[0].lower() != b"host"]
        headers.insert(0, (b"Host", authority))
    host = first(headers, b"host")
    if not AUTHORITY.fullmatch(host):
        raise Problem(400, f"bad request: {host!r} is no host")
    return target, headers


def _absolute(target: bytes) -> tuple[bytes, bytes]:
    text = target.decode("latin-1")
    try:
        url = urlsplit(text)
    except ValueError as error:
        raise Problem(400, f"bad request: {text!r}: {error}") from None
    if url.scheme.lower() not in ("http", "https") or not url.netloc:
        raise Problem(400, f"bad request: {text!r} is neither a path nor an http URL")
    path = f"{url.path or '/'}?{url.query}" if url.query else url.path or "/"
    return path.encode("latin-1"), url.netloc.encode("latin-1")


def check_framing(version: bytes, headers: Headers) -> None:
    """See that nobody can take the body for longer or shorter than we do.

    Raises:
        Problem: 400 for two lengths of one body, 505 for a version that is not HTTP/1.
    """
    if version not in (b"1.0", b"1.1"):
        text = f"HTTP/{version.decode()} is not spoken here; HTTP/2 is, over TLS"
        raise Problem(505, text)
    if first(headers, b"transfer-encoding"):
        if first(headers, b"content-length"):
            raise Problem(400, "bad request: Content-Length and Transfer-Encoding in one request")
        if version == b"1.0":
            raise Problem(400, "bad request: HTTP/1.0 has no Transfer-Encoding")
