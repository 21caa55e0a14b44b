"""Headers that Fly Proxy's `http` handler removes and adds.

Sources: https://fly.io/docs/networking/request-headers/ and
https://fly.io/docs/reference/configuration/#services-ports-http_options-response-headers.
"""

from __future__ import annotations

from dataclasses import dataclass

from pytest_flymachines.emulator.config import Port
from pytest_flymachines.emulator.proxy.directory import Caller

__all__ = ["Headers", "Visit", "end_to_end", "first", "for_machine", "for_visitor", "trailing"]

# Pairs of name, as it was written, and value.
Headers = list[tuple[bytes, bytes]]

SERVER = b"Fly/emulator"
HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"upgrade")
)
# What `Connection` cannot take away.
FRAMING = frozenset((b"host", b"content-length", b"transfer-encoding"))
# Only the proxy itself may say these to a machine.
OURS = frozenset(
    (
        b"fly-client-ip",
        b"fly-forwarded-port",
        b"fly-preferred-instance-unavailable",
        b"fly-region",
        b"fly-replay-cache-status",
        b"fly-replay-failed",
        b"fly-replay-src",
        b"fly-request-id",
        b"fly-src",
        b"fly-src-signature",
        b"via",
        b"x-forwarded-for",
        b"x-forwarded-port",
        b"x-forwarded-proto",
        b"x-forwarded-ssl",
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """What the headers say about a request on its way.

    Attributes:
        id: `fly-request-id`.
        client: IP address of the visitor.
        port: External port.
        secure: The visitor came, or on Fly would have come, over TLS.
        region: Where the visitor entered.
        address: Public address of the app, or an empty string.
        version: HTTP version of the visitor, for `Via`.
        caller: The machine that it comes from, by flycast.
    """

    id: str
    client: str
    port: int
    secure: bool
    region: str
    address: str = ""
    version: str = "1.1"
    caller: Caller | None = None


def first(headers: Headers, name: bytes) -> str:
    """The first value of a header, or an empty string; the name in lower case."""
    return next((value.decode("latin-1") for key, value in headers if key.lower() == name), "")


def end_to_end(headers: Headers) -> Headers:
    """Headers that go on from one connection to the next; the framing of bodies among them."""
    gone = _named_by_connection(headers)
    return [(name, value) for name, value in headers if name.lower() not in gone]


def for_machine(headers: Headers, visit: Visit, *, upgrade: bool) -> Headers:
    """Headers of a request, for the machine."""
    gone = _named_by_connection(headers)
    kept = [pair for pair in headers if pair[0].lower() not in gone and not _is_ours(pair[0])]
    if upgrade:
        kept.append((b"Connection", b"Upgrade"))
        kept += [(name, value) for name, value in headers if name.lower() == b"upgrade"]
    hops = [*_all(headers, b"x-forwarded-for"), visit.client, visit.address]
    port = str(visit.port)
    kept += [
        (b"Fly-Client-IP", visit.client.encode()),
        (b"Fly-Forwarded-Port", port.encode()),
        (b"Fly-Region", visit.region.encode()),
        (b"Fly-Request-Id", visit.id.encode()),
        (b"X-Forwarded-For", ", ".join(filter(None, hops)).encode("latin-1")),
        (b"X-Forwarded-Port", (first(headers, b"x-forwarded-port") or port).encode("latin-1")),
        (b"X-Forwarded-Proto", b"https" if visit.secure else b"http"),
        (b"X-Forwarded-SSL", b"on" if visit.secure else b"off"),
        (b"Via", ", ".join([*_all(headers, b"via"), _via(visit)]).encode("latin-1")),
    ]
    return kept


def for_visitor(headers: Headers, visit: Visit, port: Port | None) -> Headers:
    """Headers of a response, for the visitor; hop-by-hop ones and framing are left out."""
    options = port.http_options.response if port and port.http_options else None
    gone = _named_by_connection(headers) | {b"transfer-encoding"}
    if first(headers, b"transfer-encoding"):
        gone |= {b"content-length"}  # it does not count (RFC 9112, 6.3)
    pristine = options is not None and options.pristine
    if not pristine:
        gone |= {b"server", b"via", b"fly-request-id"}
    wanted: dict[str, object] = (options.headers if options else None) or {}
    gone |= {name.lower().encode("latin-1") for name in wanted}
    kept = [(name, value) for name, value in headers if name.lower() not in gone]
    for name, value in wanted.items():
        values = value if isinstance(value, list) else [value] if isinstance(value, str) else []
        kept += [(name.encode("latin-1"), str(one).encode("latin-1")) for one in values]
    if not pristine:
        kept += [
            (b"Server", SERVER),
            (b"Via", ", ".join([*_all(headers, b"via"), _via(visit)]).encode("latin-1")),
            (b"Fly-Request-Id", visit.id.encode()),
        ]
    return kept


def trailing(fields: Headers) -> Headers:
    """What may stand after a body: nothing that says where it goes or how long it is."""
    gone = HOP_BY_HOP | FRAMING
    return [pair for pair in fields if pair[0].lower() not in gone and not _is_ours(pair[0])]


def _is_ours(name: bytes) -> bool:
    # many programs see `Fly_Client_IP` as the same name
    return name.lower().replace(b"_", b"-") in OURS


def _named_by_connection(headers: Headers) -> frozenset[bytes]:
    named = ",".join(_all(headers, b"connection")).lower()
    return HOP_BY_HOP | {part.strip().encode("latin-1") for part in named.split(",")} - FRAMING


def _all(headers: Headers, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in headers if key.lower() == name]


def _via(visit: Visit) -> str:
    return f"{visit.version} fly.io"
