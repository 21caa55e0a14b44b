"""The private network between machines: packets from one machine's interface to another's.

Every machine has an interface `fly0` (see `sixpn`), whose other end lies here. A packet is
handed on if it comes from the sender's own address and is for a machine of the same network, or
for the gateway. That is this process's own network namespace, in which the emulator's sockets
listen and nothing else is: no packet ever reaches this computer's network. One process does it
for all machines of an engine, so that traffic between them takes nothing from the emulator.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import NoReturn

from pytest_flymachines.emulator.engines.supervisor import linux, sixpn, wire

__all__ = ["main"]

_PACKETS_A_TURN = 64
_EVERY = ""
"""The network in which the gateway finds all machines."""
_LARGEST_PACKET = 65536
_MULTICAST = 0xFF
_ICMPV6 = 58
_QUOTED_BYTES = 1232
"""How much of a packet is sent back with the news that it did not arrive (RFC 4443, 3.1)."""


@dataclass(frozen=True)
class _Port:
    """The interface of a machine, or of the gateway."""

    device: int
    address: bytes
    network: str


def main(control: socket.socket, spawner: int) -> NoReturn:
    """Serve in this freshly forked process until the emulator or the spawner is gone.

    | op | fields, descriptors | answer |
    |---|---|---|
    | open | address of the gateway | empty, or an error |
    | door | kind, address, network, port | a socket of the gateway, or an error |
    | withdraw | address, network | none |
    | join | address, network; an interface | empty |
    | leave | address, network | none |
    """
    try:
        linux.die_with_parent(signal.SIGKILL)
        if os.getppid() == spawner:
            _Switch(control).serve()
    finally:
        os._exit(0)


class _Switch:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._gateway: _Port | None = None
        self._ports: dict[tuple[str, bytes], _Port] = {}
        self._devices: dict[int, _Port] = {}
        self._hosted: set[bytes] = set()
        self._poll = select.epoll()
        self._poll.register(control.fileno(), select.EPOLLIN)

    def serve(self) -> None:
        """Until the emulator is gone."""
        while True:
            for fd, _ in self._poll.poll():
                if fd != self._control.fileno():
                    if port := self._devices.get(fd):
                        self._forward(port)
                    continue
                message, fds = wire.receive(self._control)
                if message is wire.CLOSED:
                    return
                self._answer(message, fds)

    def _answer(self, message: wire.Message, fds: list[int]) -> None:
        answer: wire.Message = {"id": message["id"]}
        passed: list[int] = []
        address = message["address"]
        try:
            match message["op"]:
                case "open":
                    self._open(address)
                case "door":
                    self._host(address, message["network"])
                    passed = [sixpn.listen(message["kind"], address, message["port"])]
                case "withdraw":
                    if self._ports.get((message["network"], _packed(address))) == self._gateway:
                        del self._ports[message["network"], _packed(address)]
                case "join":
                    self._join(_Port(fds.pop(), _packed(address), message["network"]))
                case "leave":
                    self._leave(self._ports.get((message["network"], _packed(address))))
        except OSError as error:
            answer["error"] = str(error)
        with contextlib.suppress(OSError):
            wire.send(self._control, answer, passed)
        wire.close_all([*fds, *passed])

    def _open(self, address: str) -> None:
        devices = sixpn.open_devices()
        if devices is None:
            raise FileNotFoundError("there is no /dev/net")
        try:
            sixpn.enter_own_network()
            self._gateway = _Port(sixpn.attach(address, devices), _packed(address), _EVERY)
        finally:
            os.close(devices)
        self._devices[self._gateway.device] = self._gateway
        self._poll.register(self._gateway.device, select.EPOLLIN)

    def _host(self, address: str, network: str) -> None:
        """Have the gateway be found at one more address, by the machines of a network."""
        packed = _packed(address)
        if self._gateway is None or packed == self._gateway.address:
            return
        if packed not in self._hosted:
            linux.add_address(address, socket.if_nametoindex(sixpn.INTERFACE))
            self._hosted.add(packed)
        self._ports[network, packed] = self._gateway

    def _join(self, port: _Port) -> None:
        self._ports[port.network, port.address] = self._ports[_EVERY, port.address] = port
        self._devices[port.device] = port
        self._poll.register(port.device, select.EPOLLIN)

    def _leave(self, port: _Port | None) -> None:
        if port is not None and port.device in self._devices:
            del self._devices[port.device]
            for network in (port.network, _EVERY):
                self._ports.pop((network, port.address), None)
            self._poll.unregister(port.device)
            os.close(port.device)

    def _forward(self, port: _Port) -> None:
        for _ in range(_PACKETS_A_TURN):
            try:
                packet = os.read(port.device, _LARGEST_PACKET)
            except BlockingIOError:
                return
            except OSError:  # The machine's network is gone.
                self._leave(port)
                return
            if len(packet) < 40 or packet[0] >> 4 != 6 or not self._owns(port, packet[8:24]):
                continue
            target = self._target(port, packet[24:40])
            # A full queue drops packets, as on any network; a machine may be gone meanwhile.
            with contextlib.suppress(OSError):
                if target is not None:
                    os.write(target.device, packet)
                elif packet[24] != _MULTICAST and packet[6] != _ICMPV6:
                    os.write(port.device, _unreachable(packet))

    def _owns(self, port: _Port, address: bytes) -> bool:
        return address == port.address or (port is self._gateway and address in self._hosted)

    def _target(self, sender: _Port, address: bytes) -> _Port | None:
        if self._gateway is not None and address == self._gateway.address:
            return self._gateway
        return self._ports.get((sender.network, address))


def _packed(address: str) -> bytes:
    return IPv6Address(address).packed


def _unreachable(packet: bytes) -> bytes:
    """The answer to a packet for nobody: ICMPv6's "address unreachable", from that address."""
    source, destination = packet[24:40], packet[8:24]
    kind, code = 1, 3
    quoted = packet[:_QUOTED_BYTES]
    length = 8 + len(quoted)
    pseudo = source + destination + struct.pack("!II", length, _ICMPV6)
    checksum = _checksum(pseudo + struct.pack("!BBHI", kind, code, 0, 0) + quoted)
    head = struct.pack("!IHBB", 6 << 28, length, _ICMPV6, 64) + source + destination
    return head + struct.pack("!BBHI", kind, code, checksum, 0) + quoted


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
