"""The private network between the machines of an engine, as the engine sees it."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Sequence

from pytest_flymachines.emulator.engines.base import GATEWAY, Door, EngineError
from pytest_flymachines.emulator.engines.peer import Peer
from pytest_flymachines.emulator.engines.spawner import Spawner

__all__ = ["PrivateNetwork"]


_DNS_PORT = 53


class PrivateNetwork:
    """A switch that hands packets on between machines, and the gateway among them.

    Attributes:
        why_not: Why there is none; empty once it works.
        resolves: Whether there is a name server at `GATEWAY`.
    """

    def __init__(self) -> None:
        self.why_not = "it was not opened"
        self.resolves = False
        self._peer: Peer | None = None
        self._closers: list[Callable[[], None]] = []

    async def open(self, spawner: Spawner) -> None:
        """Start the switch, if this computer lets us; else `why_not` says what is missing.

        Args:
            spawner: Forks the switch.
        """
        self._peer = Peer(await spawner.switch(), lambda _: None)
        try:
            await self._peer.request("open", address=GATEWAY)
        except EngineError as error:
            self.why_not = str(error)
        else:
            self.why_not = ""

    async def serve(self, doors: Sequence[Door]) -> None:
        """Serve at `GATEWAY` from now on.

        Raises:
            EngineError: The switch is gone.
        """
        if self._peer is None or self.why_not:
            return
        for door in doors:
            _, fds = await self._peer.request(
                "door", kind=door.kind, address=GATEWAY, port=door.port
            )
            self._closers.append(door.serve(socket.socket(fileno=fds.pop())))
        self.resolves = any(door.port == _DNS_PORT for door in doors)

    async def join(self, address: str, network: str, interface: int) -> None:
        """Connect a machine to those of its network, and to the gateway.

        Args:
            address: Its 6PN address.
            network: Whoever names the same one can reach it.
            interface: Descriptor of its interface; closed here.
        """
        try:
            with contextlib.suppress(EngineError):  # A machine can do without.
                if self._peer is not None:
                    await self._peer.request("join", [interface], address=address, network=network)
        finally:
            os.close(interface)

    def leave(self, address: str, network: str) -> None:
        """Disconnect a machine that has ended."""
        if self._peer is not None:
            self._peer.tell("leave", address=address, network=network)

    def close(self) -> None:
        """End the gateway and the switch."""
        for close in self._closers:
            close()
        self._closers.clear()
        if self._peer is not None:
            self._peer.close()
