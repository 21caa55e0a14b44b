"""The emulator's end of a control socket: requests, their answers, events, the end."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Callable, Sequence

from pytest_flymachines.emulator.engines.base import EngineError
from pytest_flymachines.emulator.engines.supervisor import wire

__all__ = ["Peer"]

_RETRY_S = 0.002
_ENDED = "the machine has ended"

Answer = tuple[wire.Message, list[int]]
"""A message and the descriptors that came with it."""


class Peer:
    """A spawner or a supervisor, as seen from the event loop.

    Args:
        sock: Our end of the pair; owned from here on.
        on_event: Called with each message that answers nothing, and with `wire.CLOSED` last.
    """

    def __init__(self, sock: socket.socket, on_event: Callable[[wire.Message], None]) -> None:
        self._sock = sock
        self._on_event = on_event
        self._serials = itertools.count(1)
        self._pending: dict[int, asyncio.Future[Answer]] = {}
        self._loop = asyncio.get_running_loop()
        sock.setblocking(False)
        self._loop.add_reader(sock, self._on_readable)

    async def request(self, op: str, fds: Sequence[int] = (), **fields: object) -> Answer:
        """Ask, and wait for the answer and the descriptors that came with it.

        Raises:
            EngineError: It answered with an error, or is gone.
        """
        return await (await self.ask(op, fds, **fields))

    async def ask(
        self, op: str, fds: Sequence[int] = (), **fields: object
    ) -> asyncio.Future[Answer]:
        """As `request`, but return once the descriptors are sent: they can be closed then."""
        serial = next(self._serials)
        message = {"id": serial, "op": op, **fields}
        while True:
            try:
                wire.send(self._sock, message, fds)
            except BlockingIOError:
                await asyncio.sleep(_RETRY_S)
            except OSError as error:
                raise EngineError(_ENDED) from error
            else:
                break
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._pending[serial] = future
        return future

    def tell(self, op: str, **fields: object) -> None:
        """Ask for something that has no answer; nothing happens if the other side is gone."""
        try:
            wire.send(self._sock, {"id": 0, "op": op, **fields})
        except BlockingIOError:
            self._loop.call_later(_RETRY_S, lambda: self.tell(op, **fields))
        except OSError:
            pass

    @property
    def closed(self) -> bool:
        """Whether either side has closed its end."""
        return self._sock.fileno() < 0

    def close(self) -> None:
        """Close our end, which ends the other side, and fail what is pending."""
        if not self.closed:
            self._loop.remove_reader(self._sock)
            self._sock.close()
            for future in self._pending.values():
                if not future.done():
                    future.set_exception(EngineError(_ENDED))
            self._on_event(wire.CLOSED)

    def _on_readable(self) -> None:
        try:
            message, fds = wire.receive(self._sock)
        except BlockingIOError:
            return
        if message is wire.CLOSED:
            self.close()
            return
        future = self._pending.pop(message.get("id", 0), None)
        if future is None or future.done():
            wire.close_all(fds)
            if "event" in message:
                self._on_event(message)
        elif "error" in message:
            future.set_exception(EngineError(message["error"]))
        else:
            future.set_result((message, fds))
