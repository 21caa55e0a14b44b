"""Identifiers as Fly makes them: machine ids, ULIDs, volume ids, names, 6PN addresses."""

from __future__ import annotations

import hashlib
import os
import random
import secrets
import time

__all__ = [
    "Ulids",
    "app_id",
    "machine_id",
    "machine_name",
    "new_ulid",
    "nonce",
    "private_ip",
    "snapshot_id",
    "volume_id",
]

CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"

ADJECTIVES = """
aged bitter blue bold broken cold crimson damp dark dawn divine dry falling floral green hidden
holy icy late lively long misty morning muddy nameless old patient polished proud quiet red
restless rough shy silent small snowy solitary still summer twilight white wild
"""
NOUNS = """
bird breeze brook bush butterfly cherry cloud darkness dawn dew dream dust feather field fire
firefly flower fog forest frog frost glade grass haze hill lake leaf meadow moon morning
mountain night paper pine pond rain resonance river sea shadow silence sky smoke snow sound star
sun sunset surf thunder tree violet voice water wave wind wood
"""


class Ulids:
    """Makes ULIDs that grow strictly, also within one millisecond."""

    def __init__(self) -> None:
        self._last = 0

    def new(self) -> str:
        """The next ULID: 26 characters that sort by time."""
        fresh = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
        self._last = max(fresh, self._last + 1)
        return _encode(self._last)


def _encode(value: int) -> str:
    return "".join(CROCKFORD[value >> shift & 31] for shift in range(125, -1, -5))


new_ulid = Ulids().new


def machine_id() -> str:
    """14 hexadecimal digits."""
    return secrets.token_hex(7)


def nonce() -> str:
    """A lease nonce: 12 hexadecimal digits."""
    return secrets.token_hex(6)


def app_id() -> str:
    """16 characters of base 36."""
    return _base36(16)


def volume_id() -> str:
    """`vol_` and 16 characters of base 36."""
    return "vol_" + _base36(16)


def snapshot_id() -> str:
    """`vs_` and 22 characters of base 36."""
    return "vs_" + _base36(22)


def _base36(length: int) -> str:
    return "".join(secrets.choice(BASE36) for _ in range(length))


def machine_name() -> str:
    """Two words and a number, such as `aged-thunder-7371`."""
    pick = random.choice
    return f"{pick(ADJECTIVES.split())}-{pick(NOUNS.split())}-{random.randint(1, 9999)}"  # noqa: S311 - a name


def private_ip(org: str, network: str, machine: str) -> str:
    """The 6PN address: one /48 per network of an organization, one /112 per machine."""
    net = hashlib.sha256(f"{org}/{network}".encode()).digest()
    groups = [int.from_bytes(net[:2], "big"), 0x0A7B]
    groups += [int(machine[at : at + 4], 16) for at in (0, 4, 8)]
    return "fdaa:0:" + ":".join(f"{group:x}" for group in groups) + ":2"
