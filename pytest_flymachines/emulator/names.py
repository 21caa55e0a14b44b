"""What names under `.internal` mean to a machine.

Source: https://fly.io/docs/networking/private-networking/; the texts of TXT records as the
clients of `_instances.internal` and `vms.APP.internal` read them. Only machines of the asking
one's organization and network are there, and only started ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from pytest_flymachines.emulator.engines.base import GATEWAY
from pytest_flymachines.emulator.model import App, Machine
from pytest_flymachines.emulator.regions import distance
from pytest_flymachines.emulator.store import Store

__all__ = [
    "DOMAINS",
    "Found",
    "flycast_places",
    "lookup",
    "machine_at",
    "names_of",
]

DOMAIN = "internal"
FLYCAST = "flycast"
DOMAINS = (DOMAIN, FLYCAST)

_NEAREST = re.compile(r"top(\d+)\.nearest\.of")


@dataclass(frozen=True)
class Found:
    """What a name has.

    Attributes:
        addresses: For AAAA records.
        text: For a TXT record, or None.
    """

    addresses: tuple[str, ...] = ()
    text: str | None = None


def names_of(machine: Machine) -> list[str]:
    """The names that lead to a machine, those that others share included."""
    config = machine.config
    if config.dns.skip_registration:
        return []
    domain = f"{machine.app}.{DOMAIN}"
    metadata = config.metadata or {}
    names = [domain, f"global.{domain}"]
    names += [f"{machine.id}.vm.{domain}", f"{machine.region}.{domain}"]
    if group := metadata.get("fly_process_group"):
        names.append(f"{group}.process.{domain}")
    names += [f"{value}.{key}.kv._metadata.{domain}" for key, value in metadata.items() if value]
    return [name.lower() for name in names]


def flycast_places(app: App) -> Iterable[tuple[str, str]]:
    """Private addresses of an app, each with the network whose machines find it there.

    That is the default network of its organization, whatever the app's own is, unless another was
    named with the address (https://fly.io/docs/networking/flycast/).
    """
    for item in app.ips.values():
        if item.type == "private_v6":
            yield item.ip, f"{item.org or app.org}/{item.network or 'default'}"


def machine_at(store: Store, address: str) -> Machine | None:
    """The machine with this 6PN address."""
    wanted = ip_address(address)
    for machine in store.machines.values():
        if not machine.destroyed_ms and IPv6Address(machine.private_ip) == wanted:
            return machine
    return None


def lookup(store: Store, asking: Machine, name: str) -> Found | None:
    """What a name means; None if there is no such name.

    Args:
        store: All records.
        asking: Whose network it is.
        name: In small letters, without the last dot.
    """
    home = store.apps.get(asking.app)
    if home is None:
        return None
    if name.endswith(f".{FLYCAST}"):
        return _flycast(store, home, name.removesuffix(f".{FLYCAST}"))
    if not name.endswith(f".{DOMAIN}"):
        return None
    rest, _, last = name.removesuffix(f".{DOMAIN}").rpartition(".")
    apps = [app for app in store.apps.values() if _together(app, home)]
    if last.startswith("_"):
        whole = f"{rest}.{last}" if rest else last
        return _of_network(store, apps, whole)
    if last not in {app.name for app in apps}:
        return None
    machines = _registered(store, last)
    if nearest := _NEAREST.fullmatch(rest):
        near = sorted(machines, key=lambda machine: distance(asking.region, machine.region))
        return Found(_addresses(near[: int(nearest[1])]))
    if rest in ("all.vms", "all.regions"):
        machines, rest = _deployed(store, last), rest.removeprefix("all.")
    if rest == "vms":
        return Found(text=",".join(f"{machine.id} {machine.region}" for machine in machines))
    if rest == "regions":
        return Found(text=",".join(sorted({machine.region for machine in machines})))
    found = [machine for machine in machines if name in names_of(machine)]
    return Found(_addresses(found)) if found or not rest else None


def _flycast(store: Store, home: App, name: str) -> Found | None:
    app = store.apps.get(name)
    places = flycast_places(app) if app else ()
    found = tuple(ip for ip, network in places if network == f"{home.org}/{home.network}")
    return Found(found) if found else None


def _of_network(store: Store, apps: list[App], name: str) -> Found | None:
    match name:
        case "_api":
            return Found((GATEWAY,))
        case "_apps":
            return Found(text=",".join(sorted(app.name for app in apps)))
        case "_instances" | "all._instances":
            of_app = _registered if name == "_instances" else _deployed
            machines = [machine for app in apps for machine in of_app(store, app.name)]
            return Found(text=";".join(map(_instance, machines)))
        case "_peer":  # WireGuard peers, of which there are none.
            return Found(text="")
        case _:
            return None


def _together(one: App, other: App) -> bool:
    return (one.org, one.network) == (other.org, other.network)


def _registered(store: Store, app: str) -> list[Machine]:
    return [machine for machine in _deployed(store, app) if machine.state == "started"]


def _deployed(store: Store, app: str) -> list[Machine]:
    return [m for m in store.machines_of(app) if not m.destroyed_ms and names_of(m)]


def _addresses(machines: Iterable[Machine]) -> tuple[str, ...]:
    return tuple(machine.private_ip for machine in machines)


def _instance(machine: Machine) -> str:
    return (
        f"instance={machine.id},app={machine.app},ip={machine.private_ip},region={machine.region}"
    )
