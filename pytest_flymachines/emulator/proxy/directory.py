"""What the proxy needs to know of apps and machines, and to do with them."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO, Protocol

from pytest_flymachines.emulator.config import MachineConfig

__all__ = ["AppRecord", "Caller", "Directory", "MachineRecord", "StartRefused"]


class StartRefused(Exception):
    """A machine could not be started; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppRecord:
    """An app as the proxy sees it.

    Attributes:
        name: Its name, which is also that of `<name>.fly.dev`.
        org: Slug of its organization; `fly-replay` stays within it.
        network: Name of its private network; `fly-replay` stays within it.
        address: A public address of it, for `X-Forwarded-For`; empty if it has none.
        flycast: Its private addresses, each with the network in which machines find it.
    """

    name: str
    org: str = "personal"
    network: str = "default"
    address: str = ""
    flycast: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A machine that is a visitor.

    Attributes:
        machine: Its id.
        app: Name of its app.
        org: Slug of its organization.
        region: Where it is.
    """

    machine: str
    app: str
    org: str
    region: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineRecord:
    """A machine as it is at this moment.

    Attributes:
        id: Machine id.
        app: Name of its app.
        region: Region code.
        state: Fly's word: `started`, `stopped`, `suspended`, ...
        config: Where services, `PRIMARY_REGION` and `disable_machine_autostart` are.
        cordoned: Kept out of routing.
        leased: Somebody else has the right to change it, so that it cannot be started.
        failing: Internal ports of the services whose own checks do not pass now.
    """

    id: str
    app: str
    region: str
    state: str
    config: MachineConfig
    cordoned: bool = False
    leased: bool = False
    failing: frozenset[int] = frozenset()


class Directory(Protocol):
    """The emulator's side of the proxy."""

    def app(self, name: str) -> AppRecord | None:
        """The app of this name."""
        ...

    def machines(self, app: str) -> Iterable[MachineRecord]:
        """The machines of an app that have services and are not destroyed."""
        ...

    def machine(self, machine_id: str) -> MachineRecord | None:
        """One machine that is not destroyed."""
        ...

    def caller(self, address: str) -> Caller | None:
        """The machine with this 6PN address."""
        ...

    async def connect(self, machine_id: str, port: int) -> socket.socket:
        """A non-blocking TCP socket connected to this port inside the machine.

        Raises:
            OSError: Nothing listens there, or the machine does not run.
        """
        ...

    async def open_file(self, machine_id: str, path: str) -> IO[bytes] | None:
        """A regular file of a machine that runs, to be read; None if there is none."""
        ...

    async def datagrams(self, machine_id: str, port: int) -> socket.socket:
        """A non-blocking UDP socket connected to this port of `fly-global-services` inside.

        Raises:
            OSError: The machine does not run.
        """
        ...

    async def start(self, machine_id: str) -> None:
        """Start or resume a machine and wait until it is started.

        Raises:
            StartRefused: It could not be started.
        """
        ...

    def log(self, app: str, machine_id: str, text: str) -> None:
        """Take note of what the proxy could not do; the id is empty if no machine is meant."""
        ...
