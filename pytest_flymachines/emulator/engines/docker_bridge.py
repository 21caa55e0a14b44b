"""This computer's end of a network of the daemon, where containers find the emulator's servers."""

from __future__ import annotations

import contextlib
import socket
from collections import Counter
from collections.abc import Callable

from pytest_flymachines.emulator.engines.base import Door
from pytest_flymachines.emulator.engines.supervisor import linux

__all__ = ["Bridge", "bridge_name"]


def bridge_name(network: str) -> str:
    """The interface that Docker makes for a network, by its id."""
    return f"br-{network[:12]}"


class Bridge:
    """One such end.

    Args:
        network: Id.
        gateway: This computer's address in it, which the daemon has given to it.
    """

    def __init__(self, network: str, gateway: str) -> None:
        self.gateway = gateway
        self._interface = bridge_name(network)
        self._hosted: Counter[str] = Counter()

    def serve(self, door: Door, address: str) -> Callable[[], None]:
        """Serve for the containers of the network, and for nobody else.

        Args:
            door: What to serve; its own address is not used.
            address: The gateway, or any IPv6 address, which is this computer's in the network from
                then on: for that one must be root.

        Returns:
            What ends that.

        Raises:
            OSError: The network is not one of this computer's, the port is taken, or one is not
                root.
        """
        if address != self.gateway:
            self._host(address)
        try:
            close = door.serve(self._listen(address, door.port, door.kind))
        except BaseException:
            self._let_go(address)
            raise

        def end() -> None:
            close()
            self._let_go(address)

        return end

    def _listen(self, address: str, port: int, kind: str) -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
        try:
            # Else whoever routes packets for the address to this computer could connect.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self._interface.encode())
            if kind == "tcp":
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address, port))
            if kind == "tcp":
                listener.listen()
        except BaseException:
            listener.close()
            raise
        return listener

    def _host(self, address: str) -> None:
        if not self._hosted[address]:
            linux.add_address(address, socket.if_nametoindex(self._interface))
        self._hosted[address] += 1

    def _let_go(self, address: str) -> None:
        if address in self._hosted:
            self._hosted[address] -= 1
            if not self._hosted[address]:
                del self._hosted[address]
                with contextlib.suppress(OSError):  # The network is gone.
                    linux.remove_address(address, socket.if_nametoindex(self._interface))
