"""The daemon's networks: one for each 6PN, and what the emulator serves in them."""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Network
from typing import Any

from docker.errors import APIError
from docker.types import IPAMConfig, IPAMPool

from pytest_flymachines.emulator.engines.base import GATEWAY, Door, MachineConfigForEngine
from pytest_flymachines.emulator.engines.docker_bridge import Bridge
from pytest_flymachines.emulator.engines.docker_client import OWNER
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
        api: Where the Machines API is found: at `GATEWAY`, as on Fly, or at the gateway; empty if
            nowhere.
        resolves: There is a name server at the gateway, which knows the machines' states. Else
            the daemon's own has their names, as of their start.
    """

    id: str
    has_6pn: bool
    gateway: str = ""
    api: str = ""
    resolves: bool = False

    @property
    def hosts(self) -> dict[str, str]:
        """Lines for /etc/hosts."""
        return {"_api.internal": self.api} if self.api else {}

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
        self._bridges: list[tuple[Bridge, str]] = []
        self._closers: list[Callable[[], None]] = []
        self._opened: dict[Door, list[Callable[[], None]]] = {}
        self.doors: Sequence[Door] = ()

    async def of(self, client: Any, machine: MachineConfigForEngine) -> Network:
        """The network of the app's 6PN: its machines reach each other at their `private_ip`.

        Not to be called again before it has answered.
        """
        # Not /48, as on Fly: Docker 20 counts addresses in 64 bits and would give another.
        prefix = str(IPv6Network(f"{machine.private_ip}/64", strict=False))
        if prefix not in self._networks:
            self._networks[prefix] = await self._make(client, prefix, machine.network)
        return self._networks[prefix]

    def open(self, door: Door) -> Callable[[], None] | None:
        """Serve at an address of its own, also in networks that are made later.

        Returns:
            What ends that; None for one who is not root.
        """
        if os.geteuid() != 0:
            return None
        self._opened[door] = []
        for bridge, name in self._bridges:
            self._open_late(bridge, name, door)

        def close() -> None:
            for end in self._opened.pop(door, ()):
                end()

        return close

    def close(self) -> None:
        """Close the doors."""
        for close in (*self._closers, *(end for ends in self._opened.values() for end in ends)):
            close()
        self._closers.clear()
        self._opened.clear()

    async def _make(self, client: Any, prefix: str, of_machines: str) -> Network:
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
        bridge = Bridge(network, gateway)
        resolves = self._open(bridge, gateway, names)
        at = [GATEWAY, gateway] if has_6pn else [gateway]
        where = next((address for address in at if self._open(bridge, address, api)), "")
        if where == GATEWAY:
            self._open(bridge, GATEWAY, names)
        if has_6pn:
            self._bridges.append((bridge, of_machines))
            for door in self._opened:
                self._open_late(bridge, of_machines, door)
        return Network(network, has_6pn=has_6pn, gateway=gateway, api=where, resolves=resolves)

    def _open(self, bridge: Bridge, address: str, doors: Sequence[Door]) -> bool:
        """Serve at this computer's address in a network; False if that cannot be had."""
        closers: list[Callable[[], None]] = []
        try:
            closers.extend(bridge.serve(door, address) for door in (doors if address else ()))
        except OSError:  # The daemon is not on this computer, the port is taken, or not for us.
            for close in closers:
                close()
            return False
        self._closers += closers
        return bool(closers)

    def _open_late(self, bridge: Bridge, name: str, door: Door) -> None:
        if door.network in ("", name):
            with contextlib.suppress(OSError):  # as above
                self._opened[door].append(bridge.serve(door, door.address))
