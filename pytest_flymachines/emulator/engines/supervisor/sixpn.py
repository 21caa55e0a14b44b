"""Places in the private network, made from inside the network namespaces that have them."""

from __future__ import annotations

import contextlib
import os
import socket

from pytest_flymachines.emulator.engines.supervisor import linux

__all__ = ["INTERFACE", "attach", "connect", "enter_own_network", "listen", "open_devices"]

INTERFACE = "fly0"
_MTU = 1420  # As Fly's init sets it.
_NETWORK = ("fdaa::", 16)


def open_devices() -> int | None:
    """The directory with the device of tunnels, to be opened before it is out of view."""
    with contextlib.suppress(OSError):
        return os.open("/dev/net", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return None


def connect(address: str, devices: int | None) -> int | None:
    """Give the machine its address, on an interface to the others if this computer lets us.

    Args:
        address: Its own.
        devices: From `open_devices`; closed here.

    Returns:
        The descriptor of that interface; None if there is none: then the address is only good
        to listen on, and for the machine itself.
    """
    try:
        if devices is not None:
            return attach(address, devices)
    except OSError:
        pass
    finally:
        if devices is not None:
            os.close(devices)
    with contextlib.suppress(OSError):  # No IPv6 in this kernel.
        linux.add_address(address)
    return None


def attach(address: str, devices: int) -> int:
    """Make an interface with this address, behind which the private network lies.

    Raises:
        OSError: No IPv6 in this kernel, or no right to make tunnels.
    """
    device, interface = linux.make_tun(devices, INTERFACE, _MTU)
    try:
        linux.add_address(address, interface)
        linux.add_route(*_NETWORK, interface)
    except BaseException:
        os.close(device)
        raise
    return device


def enter_own_network() -> None:
    """Step into a network namespace with nothing in it.

    Raises:
        OSError: The kernel refused.
    """
    if os.geteuid() == 0:
        linux.unshare(linux.NEW_NETWORK)
    else:
        linux.unshare(linux.NEW_NETWORK | linux.NEW_USER)


def listen(kind: str, address: str, port: int) -> int:
    """A bound socket of this network namespace; one that listens, if `kind` is tcp."""
    where = (address, port)
    if kind == "tcp":
        return socket.create_server(where, family=socket.AF_INET6, backlog=128).detach()
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.bind(where)
        return sock.detach()
