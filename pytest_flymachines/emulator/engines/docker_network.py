"""The daemon's networks: one for each 6PN, and what the emulator serves in them."""

from __future__ import annotations

import functools
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Network
from typing import Any

from docker.errors import APIError
from docker.types import IPAMConfig, IPAMPool

from pytest_flymachines.emulator.engines.base import Door, MachineConfigForEngine
from pytest_flymachines.emulator.engines.docker_client import OWNER, on_bridge
from pytest_flymachines.emulator.engines.docker_words import aliases

__all__ = ["Link", "Network", "Networks"]

_DNS_PORT = 53

Call = Callable[..., Awaitable[Any]]
"""Calls a function of the client in a thread."""


@dataclass(frozen=True)
class Network:
    """A network of the daemon.

    Attributes:
        id: The daemon's.
        has_6pn: Machines have their `private_ip` in it.
        gateway: This computer's address in it.
        has_api: The Machines API is at the gateway.
        resolves: There is a name server at the gateway, which knows the machines' states. Else
            the daemon's own has their names, as of their start.
    """

    id: str
    has_6pn: bool
    gateway: str = ""
    has_api: bool = False
    resolves: bool = False

    @property
    def hosts(self) -> dict[str, str]:
        """Lines for /etc/hosts."""
        return {"_api.internal": self.gateway} if self.has_api else {}

    @property
    def nameservers(self) -> list[str]:
        """Whom the daemon's own name server asks, if not those of this computer."""
        return [self.gateway] if self.resolves else []

    def link(self, machine: MachineConfigForEngine) -> Link:
        """The place of a machine in it."""
        return Link(
            self.id,
            ipv6_address=machine.private_ip if self.has_6pn else None,
            aliases=() if self.resolves else tuple(aliases(machine)),
        )


@dataclass(frozen=True)
class Link:
    """A machine's place in a network."""

    network: str
    ipv6_address: str | None
    aliases: tuple[str, ...]

    @property
    def endpoint(self) -> dict[str, Any]:
        """In the client's words."""
        return {"ipv6_address": self.ipv6_address, "aliases": list(self.aliases)}


class Networks:
    """All networks of an engine.

    Args:
        label: Of the engine.
        call: See `Call`.
    """

    def __init__(self, label: str, call: Call) -> None:
        self._label = label
        self._call = call
        self._networks: dict[str, Network] = {}
        self._closers: list[Callable[[], None]] = []
        self.doors: Sequence[Door] = ()

    async def of(self, client: Any, machine: MachineConfigForEngine) -> Network:
        """The network of the app's 6PN: its machines reach each other at their `private_ip`.

        Not to be called again before it has answered.
        """
        # Not /48, as on Fly: Docker 20 counts addresses in 64 bits and would give another.
        prefix = str(IPv6Network(f"{machine.private_ip}/64", strict=False))
        if prefix not in self._networks:
            self._networks[prefix] = await self._make(client, prefix)
        return self._networks[prefix]

    def close(self) -> None:
        """Close the doors."""
        for close in self._closers:
            close()
        self._closers.clear()

    async def _make(self, client: Any, prefix: str) -> Network:
        name = f"pytest-flymachines-{self._label}-{len(self._networks)}"
        labels = {OWNER: self._label}
        create = functools.partial(self._call, client.create_network, name, labels=labels)
        pools = IPAMConfig(pool_configs=[IPAMPool(subnet=prefix)])
        has_6pn = True
        try:
            made = await create(enable_ipv6=True, ipam=pools)
        except APIError as error:
            if not re.search("overlaps|already used", str(error)):
                raise
            # Another emulator on this daemon has the same organization and network.
            made, has_6pn = await create(), False
        network: str = made["Id"]
        found = await self._call(client.inspect_network, network)
        pools = found["IPAM"]["Config"] or ()
        gateway = next((p["Gateway"] for p in pools if "." in p.get("Gateway", "")), "")
        api = [door for door in self.doors if door.port != _DNS_PORT]
        # What is not at its 6PN address cannot be reached by what our names lead to.
        names = [door for door in self.doors if door.port == _DNS_PORT] if has_6pn else []
        return Network(
            network,
            has_6pn=has_6pn,
            gateway=gateway,
            has_api=self._open(network, gateway, api),
            resolves=self._open(network, gateway, names),
        )

    def _open(self, network: str, gateway: str, doors: Sequence[Door]) -> bool:
        """Serve at this computer's address in a network; False if that cannot be had."""
        sockets: list[socket.socket] = []
        try:
            sockets.extend(
                on_bridge(network, gateway, door.port, door.kind)
                for door in (doors if gateway else ())
            )
        except OSError:  # The daemon is not on this computer, the port is taken, or not for us.
            for sock in sockets:
                sock.close()
            return False
        self._closers += [door.serve(sock) for door, sock in zip(doors, sockets, strict=False)]
        return bool(sockets)
