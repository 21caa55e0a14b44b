"""The PROXY protocol: who the visitor is, told to the program before the visitor's bytes.

Source: https://www.haproxy.org/download/1.8/doc/proxy-protocol.txt.
"""

from __future__ import annotations

import asyncio
import ipaddress
import struct

from pytest_flymachines.emulator.proxy.destination import Destination

__all__ = ["header"]

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
PROXY_STREAM = {4: 0x11, 6: 0x21}


def header(transport: asyncio.BaseTransport, to: Destination) -> bytes:
    """The header of a visitor's connection: version 1, or 2 if the port asks for it."""
    host, port = transport.get_extra_info("peername")[:2]
    own_host = transport.get_extra_info("sockname")[0]
    source, own = ipaddress.ip_address(host), ipaddress.ip_address(own_host)
    options = to.port.proxy_proto_options
    if options is None or options.version != "v2":
        return f"PROXY TCP{source.version} {source} {own} {port} {to.external}\r\n".encode()
    addresses = source.packed + own.packed + struct.pack("!HH", port, to.external)
    family = PROXY_STREAM[source.version]
    return SIGNATURE + struct.pack("!BBH", 0x21, family, len(addresses)) + addresses
