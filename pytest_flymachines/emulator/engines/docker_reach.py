"""Reaching a container over its network, and keeping others from it while it is frozen.

The kernel of a frozen container would still take connections for it. Where this process may enter
its network namespace (as root, on the daemon's computer), its addresses are made to be nobody's
there, which others are told at once. Elsewhere the container leaves its network, and others wait
until nobody has answered for its address.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from pytest_flymachines.emulator.engines.base import EngineError
from pytest_flymachines.emulator.engines.docker_bridge import bridge_name
from pytest_flymachines.emulator.engines.docker_network import Link
from pytest_flymachines.emulator.engines.supervisor import linux

__all__ = ["Reach"]


class Reach:
    """A container's place in its network.

    Args:
        api: The daemon's client.
        call: Calls a function of it in a thread.
        container: Id.
        link: Its place, which it can leave; None: it cannot, or its network is another's.

    Attributes:
        addresses: Where it is reached.
    """

    def __init__(
        self, api: Any, call: Callable[..., Awaitable[Any]], container: str, link: Link | None
    ) -> None:
        self.addresses: Sequence[str] = ()
        self._api = api
        self._call = call
        self._container = container
        self._link = link
        self._pid = 0
        self._bridge = ""
        self._cut_off: Sequence[str] = ()

    async def find(self) -> None:
        """Learn the addresses of a container that runs."""
        found = await self._call(self._api.inspect_container, self._container)
        self._pid = found["State"]["Pid"]
        networks = found["NetworkSettings"]["Networks"].values()
        self._bridge = next((bridge_name(network["NetworkID"]) for network in networks), "")
        self.addresses = [
            address
            for network in networks
            for address in (network["IPAddress"], network["GlobalIPv6Address"])
            if address
        ]

    async def give_up(self) -> None:
        """Be out of reach, as a machine that does not run is."""
        addresses = tuple(self.addresses)
        try:
            await asyncio.to_thread(_within, self._pid, addresses, linux.disown_address)
            self._cut_off = addresses
        except OSError:  # not root, or the daemon's computer is another
            if self._link:
                leave = self._api.disconnect_container_from_network
                await self._call(leave, self._container, self._link.network)

    async def take(self) -> None:
        """Be reached again.

        Raises:
            EngineError: Something has changed its network meanwhile.
        """
        if self._cut_off:
            try:
                await asyncio.to_thread(_within, self._pid, self._cut_off, linux.own_address)
            except OSError as error:
                raise EngineError(f"container {self._container[:12]}: {error}") from error
            self._cut_off = ()
        elif self._link:
            join, network = self._api.connect_container_to_network, self._link.network
            await self._call(join, self._container, network, **self._link.endpoint)
            await self.find()

    async def connect(self, port: int) -> socket.socket:
        """A non-blocking TCP socket connected to this port.

        Raises:
            OSError: Nothing listens there.
        """
        failure: OSError | None = None
        for address in self.addresses:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            sock = socket.socket(family, socket.SOCK_STREAM)
            sock.setblocking(False)
            # Another daemon of this computer may have the same IPv6 network.
            with contextlib.suppress(OSError):
                if family == socket.AF_INET6:
                    bridge = self._bridge.encode()
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, bridge)
            try:
                await asyncio.get_running_loop().sock_connect(sock, (address, port))
            except OSError as error:
                sock.close()
                # that one address refuses says more than that another leads nowhere
                if failure is None or isinstance(error, ConnectionRefusedError):
                    failure = error
            except BaseException:
                sock.close()
                raise
            else:
                return sock
        raise failure or ConnectionRefusedError(f"container {self._container[:12]} has no address")

    def datagrams(self, port: int) -> socket.socket:
        """A non-blocking UDP socket connected to this port of its IPv4 address.

        Raises:
            OSError: It has none.
        """
        address = next((address for address in self.addresses if ":" not in address), "")
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            sock.connect((address, port))
        except BaseException:
            sock.close()
            raise
        return sock


def _within(pid: int, addresses: Sequence[str], change: Callable[[str, int], None]) -> None:
    """Change addresses in the network namespace of a process, in a thread that ends there."""
    failures: list[OSError] = []

    def enter() -> None:
        try:
            linux.join_namespaces(pid, linux.NEW_NETWORK)
            interface = _interface(addresses)
            for address in addresses:
                change(address, interface)
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=enter, name=f"network of process {pid}")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def _interface(addresses: Sequence[str]) -> int:
    """The one with these addresses in this thread's network namespace, by its index.

    Raises:
        OSError: There is none: the process is not that of the container.
    """
    wanted = {
        socket.inet_pton(socket.AF_INET6, address).hex() for address in addresses if ":" in address
    }
    for line in Path("/proc/thread-self/net/if_inet6").read_text().splitlines():
        address, index, *_ = line.split()
        if address in wanted:
            return int(index, 16)
    raise OSError(f"no interface with {', '.join(addresses)}")
