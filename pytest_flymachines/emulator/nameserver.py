"""The name server of machines: `.internal` from the records, all else from this computer's own.

It answers on UDP and TCP at `fdaa::3`. Who asks is known by the address, which the private
network lets nobody forge.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_flymachines.emulator import names
from pytest_flymachines.emulator.engines.base import Door
from pytest_flymachines.emulator.store import Store

if TYPE_CHECKING:
    from dns.message import Message

__all__ = ["NameServer"]

_PORT = 53
_TTL_S = 5  # As Fly's answers have it.
_LARGEST_QUERY = 4096
_PLAIN_ANSWER = 512
_TEXT_PIECE = 255
_UPSTREAM_TIMEOUT_S = 5.0
_IDLE_S = 10.0
_FORWARDS = 256
"""How many queries may wait for this computer's own name server."""


class NameServer:
    """Answers machines' queries.

    Args:
        store: The records.
        forwards: Whether queries for other names may go to this computer's own name servers.
        who: Gives the 6PN address of the machine that asks from an address.
        resolv_conf: Names those servers.
        port: Theirs.
    """

    def __init__(
        self,
        store: Store,
        *,
        forwards: bool,
        who: Callable[[str], Awaitable[str]] | None = None,
        resolv_conf: Path = Path("/etc/resolv.conf"),
        port: int = _PORT,
    ) -> None:
        self._store = store
        self._forwards = forwards
        self._who = who
        self._resolv_conf = resolv_conf
        self._port = port
        self._tasks: set[asyncio.Task[None]] = set()

    def doors(self) -> list[Door]:
        """Where it is found."""
        return [Door("udp", _PORT, self._serve_udp), Door("tcp", _PORT, self._serve_tcp)]

    def _serve_udp(self, sock: socket.socket) -> Callable[[], None]:
        sock.setblocking(False)
        loop = asyncio.get_running_loop()

        async def handle(query: bytes, asking: tuple[str, int]) -> None:
            if answer := await self.answer(query, asking[0], room=_PLAIN_ANSWER):
                with contextlib.suppress(OSError):
                    sock.sendto(answer, asking)

        def on_readable() -> None:
            with contextlib.suppress(OSError):
                while True:
                    query, asking = sock.recvfrom(_LARGEST_QUERY)
                    if len(self._tasks) < _FORWARDS:
                        self._spawn(handle(query, asking[:2]))

        def close() -> None:
            loop.remove_reader(sock)
            sock.close()
            self._end_tasks()

        loop.add_reader(sock, on_readable)
        return close

    def _serve_tcp(self, sock: socket.socket) -> Callable[[], None]:
        starting = asyncio.ensure_future(asyncio.start_server(self._on_connection, sock=sock))
        return lambda: starting.add_done_callback(lambda started: started.result().close())

    async def _on_connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        asking = writer.get_extra_info("peername")[0]
        try:
            async with asyncio.timeout(_IDLE_S):
                while True:
                    (length,) = struct.unpack("!H", await reader.readexactly(2))
                    query = await reader.readexactly(length)
                    answer = await self.answer(query, asking, room=65535)
                    if answer is None:
                        return
                    writer.write(struct.pack("!H", len(answer)) + answer)
                    await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def answer(self, query: bytes, asking: str, *, room: int) -> bytes | None:
        """The answer to a query, both as on the wire; None if the query makes no sense.

        Args:
            query: One question.
            asking: Address of the machine that asks.
            room: Bytes that the answer may have, if the query does not say that more will do.
        """
        import dns.exception  # 0.1 s, and most machines look up nothing
        import dns.message
        import dns.opcode
        import dns.rcode

        try:
            question = dns.message.from_wire(query)
            name = question.question[0].name.to_text(omit_final_dot=True).lower()
        except (dns.exception.DNSException, IndexError, ValueError):
            return None
        if question.opcode() != dns.opcode.QUERY or len(question.question) != 1:
            return _refusal(question, dns.rcode.NOTIMP)
        if name.rpartition(".")[2] in names.DOMAINS:
            asking = await self._who(asking) if self._who else asking
            return _wire(self._own(question, name, asking), max(room, question.payload))
        if not self._forwards:
            return _refusal(question, dns.rcode.REFUSED)
        answer = await self._forwarded(query, tcp=room > _PLAIN_ANSWER)
        return answer or _refusal(question, dns.rcode.SERVFAIL)

    def _own(self, question: Message, name: str, asking: str) -> Message:
        import dns.flags
        import dns.message
        import dns.rcode
        import dns.rdataclass
        import dns.rdatatype
        import dns.rrset

        asked = question.question[0]
        answer = dns.message.make_response(question, recursion_available=True)
        answer.flags |= dns.flags.AA
        machine = names.machine_at(self._store, asking)
        found = names.lookup(self._store, machine, name) if machine else None
        if found is None:
            answer.set_rcode(dns.rcode.NXDOMAIN)
            return answer
        data: list[str] = []
        if asked.rdtype == dns.rdatatype.AAAA:
            data = list(found.addresses)
        elif asked.rdtype == dns.rdatatype.TXT and found.text is not None:
            data = [_quoted(found.text)]
        if data and asked.rdclass == dns.rdataclass.IN:
            answer.answer.append(
                dns.rrset.from_text_list(asked.name, _TTL_S, asked.rdclass, asked.rdtype, data)
            )
        return answer

    async def _forwarded(self, query: bytes, *, tcp: bool) -> bytes | None:
        """What the first of this computer's name servers says; None if none says anything."""
        for server in _nameservers(self._resolv_conf):
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                async with asyncio.timeout(_UPSTREAM_TIMEOUT_S):
                    return await (_ask_tcp if tcp else _ask_udp)((server, self._port), query)
        return None

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _end_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()


def _wire(answer: Message, room: int) -> bytes:
    """An answer that fits; one that is cut off says so, and is asked for again by TCP."""
    import dns.exception
    import dns.flags

    try:
        return answer.to_wire(max_size=room)
    except dns.exception.TooBig:
        answer.flags |= dns.flags.TC
        answer.answer.clear()
        return answer.to_wire(max_size=room)


def _refusal(question: Message, code: int) -> bytes:
    import dns.message
    import dns.rcode

    answer = dns.message.make_response(question)
    answer.set_rcode(dns.rcode.Rcode(code))
    return answer.to_wire()


def _quoted(text: str) -> str:
    """A TXT record's data: strings of at most 255 bytes, which readers join."""
    pieces = [text[at : at + _TEXT_PIECE] for at in range(0, len(text), _TEXT_PIECE)] or [""]
    return " ".join(f'"{piece}"' for piece in pieces)


def _nameservers(resolv_conf: Path) -> list[str]:
    with contextlib.suppress(OSError):
        lines = [line.split() for line in resolv_conf.read_text("latin-1").splitlines()]
        return [line[1] for line in lines if len(line) > 1 and line[0] == "nameserver"]
    return []


async def _ask_udp(server: tuple[str, int], query: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        # Connected: the kernel drops what comes from anywhere else.
        await loop.sock_connect(sock, server)
        await loop.sock_sendall(sock, query)
        while (answer := await loop.sock_recv(sock, 65535))[:2] != query[:2]:
            pass
        return answer


async def _ask_tcp(server: tuple[str, int], query: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*server)
    try:
        writer.write(struct.pack("!H", len(query)) + query)
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        return await reader.readexactly(length)
    finally:
        writer.close()
