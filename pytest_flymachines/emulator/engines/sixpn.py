"""The private network between the machines of an engine, as the engine sees it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
from collections.abc import Callable, Sequence

from pytest_flymachines.emulator.engines.base import GATEWAY, Door, EngineError
from pytest_flymachines.emulator.engines.peer import Peer
from pytest_flymachines.emulator.engines.spawner import Spawner
from pytest_flymachines.emulator.engines.supervisor import wire

__all__ = ["Place", "PrivateNetwork"]


_DNS_PORT = 53
_RETRY_S = 0.5


class Place:
    """A machine's place in the network.

    Args:
        network: The whole.
        address: The machine's 6PN address.
        name: Of its own network: whoever names the same one can reach it.
        interface: Descriptor of its interface; closed by `leave`.
    """

    def __init__(self, network: PrivateNetwork, *, address: str, name: str, interface: int) -> None:
        self.address = address
        self.name = name
        self.interface = interface
        self._network = network

    async def take(self) -> None:
        """Be reached, and reach others, from now on; nothing after `leave`."""
        if self.interface >= 0:
            await self._network.join(self)

    def give_up(self) -> None:
        """Be out of reach, as a machine that does not run is."""
        self._network.part(self)

    def leave(self) -> None:
        """Give it up for good."""
        self.give_up()
        os.close(self.interface)
        self.interface = -1


class PrivateNetwork:
    """A switch that hands packets on between machines, and the gateway among them.

    A switch that was killed is replaced: the interfaces are held here too, so they outlive it.

    Attributes:
        why_not: Why there is none; empty once it works.
        resolves: Whether there is a name server at `GATEWAY`.
    """

    def __init__(self) -> None:
        self.why_not = "it was not opened"
        self.resolves = False
        self._peer: Peer | None = None
        self._lost = asyncio.Event()
        self._mending: asyncio.Task[None] | None = None
        self._places: set[Place] = set()
        self._doors: dict[Door, Callable[[], None] | None] = {}

    async def open(self, spawner: Spawner) -> None:
        """Start the switch, if this computer lets us; else `why_not` says what is missing.

        Args:
            spawner: Forks the switch.
        """
        try:
            await self._start(spawner)
        except EngineError as error:
            self.why_not = str(error)
        else:
            self.why_not = ""
            self._mending = asyncio.ensure_future(self._mend(spawner))

    async def serve(self, doors: Sequence[Door]) -> None:
        """Serve at `GATEWAY` from now on.

        Raises:
            EngineError: The switch is gone.
        """
        if self.why_not:
            return
        self.resolves = any(door.port == _DNS_PORT for door in doors)
        for door in doors:
            await self.open_door(door)

    async def open_door(self, door: Door) -> Callable[[], None] | None:
        """Serve at an address from now on.

        Returns:
            What ends that; None if there is no network.

        Raises:
            EngineError: The switch is gone.
        """
        if self.why_not:
            return None
        self._doors[door] = None
        try:
            await self._open(door)
        except EngineError:
            del self._doors[door]
            raise
        return functools.partial(self._shut, door)

    async def join(self, place: Place) -> None:
        """Connect a machine to those of its network, and to the gateway."""
        self._places.add(place)
        with contextlib.suppress(EngineError):  # Without a switch: the next one is told.
            await self._tell_of(place)

    def part(self, place: Place) -> None:
        """Disconnect a machine."""
        self._places.discard(place)
        if self._peer is not None:
            self._peer.tell("leave", address=place.address, network=place.name)

    def close(self) -> None:
        """End the gateway and the switch."""
        if self._mending is not None:
            self._mending.cancel()
        self._close_doors()
        if self._peer is not None:
            self._peer.close()

    async def _start(self, spawner: Spawner) -> None:
        self._peer = Peer(await spawner.switch(), self._on_event)
        await self._peer.request("open", address=GATEWAY)

    def _on_event(self, message: wire.Message) -> None:
        if message is wire.CLOSED:
            self._lost.set()

    async def _mend(self, spawner: Spawner) -> None:
        while True:
            await self._lost.wait()
            self._lost.clear()
            try:
                await self._start(spawner)
                await self._open_doors()
                for place in list(self._places):
                    await self._tell_of(place)
            except (EngineError, OSError):
                await asyncio.sleep(_RETRY_S)
                self._lost.set()

    async def _open_doors(self) -> None:
        self._close_doors()
        for door in tuple(self._doors):
            await self._open(door)

    async def _open(self, door: Door) -> None:
        assert self._peer is not None
        _, fds = await self._peer.request(
            "door", kind=door.kind, address=door.address, network=door.network, port=door.port
        )
        listening = socket.socket(fileno=fds.pop())
        if door in self._doors:
            self._doors[door] = door.serve(listening)
        else:  # shut meanwhile
            listening.close()

    def _shut(self, door: Door) -> None:
        if close := self._doors.pop(door, None):
            close()
        place = (door.address, door.network)
        if self._peer and place not in {(other.address, other.network) for other in self._doors}:
            self._peer.tell("withdraw", address=door.address, network=door.network)

    def _close_doors(self) -> None:
        for door, close in self._doors.items():
            if close:
                close()
            self._doors[door] = None

    async def _tell_of(self, place: Place) -> None:
        if self._peer is not None and place in self._places:
            fields = {"address": place.address, "network": place.name}
            await self._peer.request("join", [place.interface], **fields)
