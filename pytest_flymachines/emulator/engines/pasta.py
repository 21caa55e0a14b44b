"""A network for machines through pasta, where it is installed and may be used.

pasta (https://passt.top) turns what a machine sends into connections of an ordinary process of
this computer. It would connect to private networks and to this computer's own addresses too,
so those get unreachable routes in the machine, whose root lacks CAP_NET_ADMIN to remove them.
"""

from __future__ import annotations

import os
import shutil
from functools import lru_cache
from ipaddress import IPv4Network, collapse_addresses
from pathlib import Path

from pytest_flymachines.emulator.engines.egress import Policy

__all__ = ["NAMESERVER", "find_pasta", "pasta_field"]

# TEST-NET-3: nobody has these.
_ADDRESS, _GATEWAY, _PREFIX_BITS = "203.0.113.2", "203.0.113.1", "29"
NAMESERVER = "203.0.113.4"
"""Inside: queries to it go to this computer's resolver."""

_NOT_PUBLIC = (
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/4",
    "240.0.0.0/4",
)


def find_pasta(policy: Policy) -> str | None:
    """Its path, if it can be used and can do what the policy says: all, or what is public."""
    usable = os.access("/dev/net/tun", os.R_OK | os.W_OK)
    if not (policy.enabled and usable) or policy.allowed:
        return None
    return shutil.which("pasta")


def pasta_field(pasta: str, policy: Policy) -> dict[str, object]:
    """For the supervisor's `start` request: `outbound.connect` takes it."""
    command = [pasta, "--quiet", "--foreground", "--config-net", "--ipv4-only"]
    command += ["--ns-ifname", "eth0", "--address", _ADDRESS, "--netmask", _PREFIX_BITS]
    command += ["--gateway", _GATEWAY, "--dns-forward", NAMESERVER]
    # Neither this computer's loopback nor its ports appear in the machine, nor the reverse.
    command += ["--no-map-gw", *("-t", "none", "-u", "none", "-T", "none", "-U", "none")]
    if os.geteuid() == 0:
        command += ["--runas", "0"]  # nobody could not enter the namespaces of root.
    # Read for each machine: this computer may have got an address meanwhile.
    routes = Path("/proc/net/fib_trie").read_text()
    return {"command": command, "blocked": [] if policy.everywhere else _blocked(routes)}


@lru_cache(maxsize=1)
def _blocked(routes: str) -> list[tuple[str, int]]:
    networks = [IPv4Network(network) for network in _NOT_PUBLIC] + _own(routes)
    return [(str(n.network_address), n.prefixlen) for n in collapse_addresses(networks)]


def _own(routes: str) -> list[IPv4Network]:
    """This computer's addresses: the leaves of its routing table that are local hosts."""
    found, address = [], ""
    for line in routes.splitlines():
        text = line.strip()
        if text.startswith("|-- "):
            address = text.removeprefix("|-- ")
        elif text == "/32 host LOCAL":
            found.append(IPv4Network(address))
    return found
