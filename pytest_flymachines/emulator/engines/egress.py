"""The way out of a machine: an HTTP proxy, reached through a socket that listens inside it.

A machine's network has nothing but loopback. What honours the usual `*_proxy` variables gets
out through here: names are resolved on this computer, and addresses that are not public
(loopback, private and link-local networks, this computer's own) are refused, so that nothing
in a machine reaches what only this computer can reach.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

__all__ = ["PORT", "SETTING", "Egress", "Policy", "Refused", "proxy_variables"]

PORT = 4287
"""Where the proxy listens inside each machine."""

SETTING = "PYTEST_FLYMACHINES_EGRESS"
"""Environment variable: `public` (the default), `all`, `none`, or what is allowed besides what
is public: comma-separated networks, with a port or without: `10.0.0.0/8,127.0.0.1:3141`."""

_HEAD_LIMIT = 64 * 1024
_PIECE_BYTES = 64 * 1024
_CONNECT_TIMEOUT_S = 30.0
_DROPPED = frozenset((b"connection", b"keep-alive", b"proxy-authorization", b"proxy-connection"))
_NAT64 = IPv6Network("64:ff9b::/96")

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class Refused(Exception):
    """The policy does not let a machine go there; the text is for whoever tried."""


@dataclass(frozen=True)
class Policy:
    """Where machines may connect to.

    Attributes:
        enabled: Anywhere at all.
        everywhere: Also to what is not public.
        allowed: Networks besides, each with a port, or None for all of them.
    """

    enabled: bool = True
    everywhere: bool = False
    allowed: tuple[tuple[Network, int | None], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Policy:
        """Read the value of `SETTING`.

        Raises:
            ValueError: With the part that is wrong.
        """
        if text in {"", "public"}:
            return cls()
        if text in {"all", "none"}:
            return cls(enabled=text == "all", everywhere=text == "all")
        return cls(allowed=tuple(_allowed(part.strip()) for part in text.split(",")))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Policy:
        """The policy that `SETTING` asks for."""
        return cls.parse(environment.get(SETTING, ""))

    def permits(self, address: Address, port: int) -> bool:
        """Whether a machine may connect there."""
        address = _embedded(address)
        if self.everywhere:
            return True
        if any(address in net and wanted in {None, port} for net, wanted in self.allowed):
            return True
        return address.is_global and not address.is_multicast and not _is_own(address)


def proxy_variables(private_ip: str) -> dict[str, str]:
    """What programs in a machine look at to find a proxy, in both spellings."""
    variables = {f"{scheme}_proxy": f"http://127.0.0.1:{PORT}" for scheme in ("http", "https")}
    variables["no_proxy"] = f"localhost,127.0.0.1,::1,{private_ip},.internal,.flycast"
    return variables | {name.upper(): value for name, value in variables.items()}


class Egress:
    """The proxy of one machine.

    Args:
        policy: Where it lets the machine go.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def serve(self, listener: socket.socket) -> None:
        """Answer on a socket that listens in the machine, until `close`."""
        self._server = await asyncio.start_server(self._accept, sock=listener, limit=_HEAD_LIMIT)

    def close(self) -> None:
        """Stop listening, and drop what is connected."""
        if self._server is not None:
            self._server.close()
        for task in self._connections:
            task.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await _answer(reader, writer, self._policy)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            writer.close()


async def _answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, policy: Policy
) -> None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        host, port, forwarded = _read_head(head)
        upstream = await _connect(host, port, policy)
    except asyncio.IncompleteReadError:
        return
    except Refused as error:
        _say(writer, "403 Forbidden", str(error))
    except (ValueError, asyncio.LimitOverrunError) as error:
        _say(writer, "400 Bad Request", f"not a request to a proxy: {error}")
    except (OSError, TimeoutError) as error:
        _say(writer, "502 Bad Gateway", f"cannot connect: {error or 'timed out'}")
    else:
        if forwarded:
            upstream[1].write(forwarded)
        else:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        try:
            await asyncio.gather(_pump(reader, upstream[1]), _pump(upstream[0], writer))
        finally:
            upstream[1].close()
    await writer.drain()


def _read_head(head: bytes) -> tuple[str, int, bytes]:
    """Host, port, and the head to send on; for CONNECT there is none.

    Raises:
        ValueError: It is no request to a proxy.
    """
    line, *fields = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    method, target, version = line.decode("ascii").split(" ")
    url = urlsplit(f"//{target}" if method == "CONNECT" else target)
    if not url.hostname or (method != "CONNECT" and url.scheme != "http"):
        raise ValueError(f"{method} {target}")
    port = url.port or (443 if method == "CONNECT" else 80)
    if method == "CONNECT":
        return url.hostname, port, b""
    path = url._replace(scheme="", netloc="").geturl() or "/"
    kept = [field for field in fields if field.partition(b":")[0].lower() not in _DROPPED]
    lines = [f"{method} {path} {version}".encode(), *kept, b"Connection: close", b"", b""]
    return url.hostname, port, b"\r\n".join(lines)


async def _connect(
    host: str, port: int, policy: Policy
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to the first address that the policy permits; not to the name, which may change."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(info[4][0]) for info in found))
    permitted = [a for a in addresses if policy.permits(ip_address(a.partition("%")[0]), port)]
    if not permitted:
        raise Refused(
            f"{host}:{port} ({', '.join(addresses)}) is not public, and machines of the local "
            f"emulator reach nothing else; to allow it set {SETTING}={addresses[0]}:{port}"
        )
    return await _first_that_answers(permitted, port)


async def _first_that_answers(
    addresses: Sequence[str], port: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    failure: OSError = OSError("no address")
    async with asyncio.timeout(_CONNECT_TIMEOUT_S):
        for address in addresses:
            try:
                return await asyncio.open_connection(address, port)
            except OSError as error:
                failure = error
    raise failure


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until the end, and pass the end on."""
    with contextlib.suppress(OSError):
        while piece := await reader.read(_PIECE_BYTES):
            writer.write(piece)
            await writer.drain()
        writer.write_eof()


def _say(writer: asyncio.StreamWriter, status: str, text: str) -> None:
    body = f"{text}\n".encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nConnection: close\r\n"
    writer.write(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)


def _allowed(part: str) -> tuple[Network, int | None]:
    with contextlib.suppress(ValueError):
        return ip_network(part), None
    address, _, port = part.rpartition(":")
    try:
        return ip_network(address.strip("[]")), int(port)
    except ValueError as error:
        raise ValueError(
            f"{SETTING}: {part!r} is neither public, all, none nor a network with or without a "
            "port, such as 10.0.0.0/8 or 127.0.0.1:3141"
        ) from error


def _embedded(address: Address) -> Address:
    """The IPv4 address that an IPv6 address leads to, if it is one of those."""
    if isinstance(address, IPv6Address):
        if address in _NAT64:
            return IPv4Address(address.packed[-4:])
        return address.ipv4_mapped or address.sixtofour or address
    return address


def _is_own(address: Address) -> bool:
    """Whether it is an address of this computer: then it is what we would send from."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
        sock.connect((str(address), 9))  # No packet: this only looks up the route.
        return bool(sock.getsockname()[0] == str(address))
    return False
