"""One machine of the bubblewrap engine."""

from __future__ import annotations

import socket
from pathlib import Path

from pytest_flymachines.emulator.engines.base import GuestMount
from pytest_flymachines.emulator.engines.sixpn import Place
from pytest_flymachines.emulator.engines.supervised import SupervisedMachine

__all__ = ["GLOBAL_SERVICES", "BubblewrapMachine"]

# Of the machine's own loopback, which answers at 127.0.0.1 unless bound to another address.
GLOBAL_SERVICES, _UDP_VISITORS = "127.19.0.3", "127.19.0.2"


class BubblewrapMachine(SupervisedMachine):
    """A machine of the bubblewrap engine.

    Attributes:
        place: In the private network, if it has one.
    """

    place: Place | None = None

    async def suspend(self) -> None:
        """As in `RunningMachine.suspend`; its kernel would still take connections for it."""
        await super().suspend()
        if self.place is not None:
            self.place.give_up()

    async def resume(self) -> None:
        """As in `RunningMachine.resume`."""
        await super().resume()
        if self.place is not None:
            await self.place.take()

    @property
    def first_process(self) -> int:
        """One that is in all of its namespaces: its pid on this computer."""
        return self._walls[1]

    @property
    def root(self) -> Path:
        """As its first process has it."""
        return Path(f"/proc/{self.first_process}/root")

    def place_of(self, mount: GuestMount) -> Path:
        """Where its first process has it; the machine decides what is at that path."""
        return self.root / mount.path.lstrip("/")

    async def connect(self, port: int) -> socket.socket:
        """As in `RunningMachine.connect`."""
        return await self.connect_to(["127.0.0.1", self.config.private_ip, "::1"], port)

    async def datagrams(self, port: int) -> socket.socket:
        """As in `RunningMachine.datagrams`.

        What answers from another address, as a program bound to 0.0.0.0 does, is not heard.
        """
        return await self.datagrams_to(GLOBAL_SERVICES, port, source=_UDP_VISITORS)
