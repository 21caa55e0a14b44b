"""Which machine a connection or request goes to.

Source: https://fly.io/docs/reference/load-balancing/ and
https://fly.io/docs/networking/dynamic-request-routing/.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from pytest_flymachines.emulator.config import Port, Service
from pytest_flymachines.emulator.proxy.directory import MachineRecord
from pytest_flymachines.emulator.proxy.loads import Loads, hard_limit, soft_limit
from pytest_flymachines.emulator.regions import distance, regions_of

__all__ = [
    "Refusal",
    "Target",
    "Wish",
    "choose",
    "http_port",
    "match",
    "regions",
    "span",
    "startable",
]

STARTABLE = ("stopped", "suspended")
# States that end by themselves in one that can be routed to or started.
PASSING_BY = ("creating", "created", "starting", "restarting", "replacing", "updating")
STOPPING = ("stopping", "suspending")


@dataclass(frozen=True, kw_only=True)
class Wish:
    """Where something should go.

    Attributes:
        app: Name of the app.
        port: External port.
        instance: Only this machine.
        prefer_instance: This machine if it can take it.
        regions: Groups of region codes in order of preference.
        only_regions: Nothing outside of `regions`.
        exclude: Machines that are left out.
        edge: The region where the visitor is, if not the proxy's.
    """

    app: str
    port: int
    instance: str = ""
    prefer_instance: str = ""
    regions: tuple[frozenset[str], ...] = ()
    only_regions: bool = False
    exclude: frozenset[str] = frozenset()
    edge: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """A machine that takes it, and how."""

    machine: MachineRecord
    service: Service
    port: Port

    @property
    def must_start(self) -> bool:
        """Whether the machine has to be started first."""
        return self.machine.state != "started"


@dataclass(frozen=True)
class Refusal:
    """Why no machine can take it.

    Attributes:
        text: What is wrong and what to do, with one of Fly Proxy's error codes.
        passing: It may be otherwise in a moment.
        status: HTTP status of the answer.
    """

    text: str
    passing: bool = False
    status: int = 503


def regions(text: str) -> tuple[frozenset[str], ...]:
    """The regions that a header names: codes and aliases, separated by commas."""
    return tuple(frozenset(regions_of(part)) for part in text.split(","))


def match(
    machine: MachineRecord, external: int, protocol: str = "tcp"
) -> tuple[Service, Port] | None:
    """The service of a machine that has this external port."""
    for service in machine.config.services or ():
        if (service.protocol or "tcp") != protocol:
            continue
        for port in service.ports or ():
            first, last = span(port)
            if first <= external <= last:
                return service, port
    return None


def span(port: Port) -> tuple[int, int]:
    """First and last of the external ports that an entry of `ports` stands for."""
    if port.port is not None:
        return port.port, port.port
    return port.start_port or 0, port.end_port or port.start_port or -1


def http_port(machines: Iterable[MachineRecord]) -> int | None:
    """The port that a URL without one leads to: 443, else 80, else the lowest with `http`."""
    ports = {
        span(port)[0]
        for machine in machines
        for service in machine.config.services or ()
        for port in service.ports or ()
        if "http" in (port.handlers or ())
    }
    return next((port for port in (443, 80) if port in ports), min(ports, default=None))


def startable(machine: MachineRecord, service: Service) -> bool:
    """Whether traffic may wake this machine."""
    return (
        bool(service.autostart)
        and machine.state in STARTABLE
        and not machine.cordoned
        and not machine.leased
        and not machine.config.disable_machine_autostart
    )


def choose(
    machines: Iterable[MachineRecord],
    wish: Wish,
    loads: Loads,
    *,
    edge: str,
    avoid: frozenset[str] = frozenset(),
    waking: Collection[str] = (),
) -> Target | Refusal:
    """Choose the machine for a wish.

    The least loaded machine of the nearest region; those at their soft limit only when all of
    them are, and no further one can be woken; never one at its hard limit.

    Args:
        machines: All machines of the app.
        wish: What is asked for.
        loads: What each machine has to do.
        edge: The region where the visitor is.
        avoid: Machines that have just failed; taken when there is no other.
        waking: Machines that are being started, whatever their state says.
    """
    candidates, problem = _candidates(machines, wish)
    ready, sleeping = [], []
    pending = False
    for target in candidates:
        unfit = _unfit(target, loads)
        if target.machine.id in waking and not target.machine.cordoned:
            unfit = Refusal(f"[PM05] machine {target.machine.id} is starting", passing=True)
            pending = True
        if unfit is None:
            ready.append(target)
        elif not unfit.passing and startable(target.machine, target.service):
            sleeping.append(target)
        elif not problem.passing:
            problem = unfit
        if unfit and unfit.passing and target.machine.state in PASSING_BY:
            pending = True

    def rank(target: Target) -> tuple[object, ...]:
        load = loads.of(target.machine.id, target.service.internal_port)
        return (
            target.machine.id in avoid,
            target.machine.id != wish.prefer_instance,
            _region_rank(target.machine.region, wish, edge),
            load >= soft_limit(target.service),
            load,
            random.random(),  # noqa: S311 - a fair choice, no secret
        )

    best = min(ready, key=rank, default=None)
    woken = min(sleeping, key=rank, default=None)
    if woken is None or (pending and best is None):
        return best or problem  # rather wait for the one that is coming up than wake another
    if best is None or woken.machine.id == wish.prefer_instance:
        return woken
    # https://fly.io/docs/reference/fly-proxy-autostop-autostart/: wake one if all are busy.
    busy = best.machine.id in avoid or (_overloaded(best, loads) and not pending)
    return woken if busy and woken.machine.id not in avoid else best


def _candidates(machines: Iterable[MachineRecord], wish: Wish) -> tuple[list[Target], Refusal]:
    machines = list(machines)
    if wish.instance:
        machines = [machine for machine in machines if machine.id == wish.instance]
        if not machines:
            return [], Refusal(f"[PR01] app {wish.app} has no machine {wish.instance}")
    found = [
        Target(machine, *matched)
        for machine in machines
        if machine.id not in wish.exclude and (matched := match(machine, wish.port))
    ]
    if not found:
        whose = f"machine {wish.instance}" if wish.instance else f"any machine of app {wish.app}"
        return [], Refusal(
            f"[PR01] port {wish.port} is not among the services of {whose}; "
            "services are part of a machine's config"
        )
    if wish.only_regions:
        asked = frozenset[str]().union(*wish.regions)
        found = [target for target in found if target.machine.region in asked]
        if not found:
            where = ", ".join(sorted(asked)) or "the regions asked for, which do not exist"
            return [], Refusal(f"[PR01] app {wish.app} has no machine in {where}")
    return found, Refusal(f"[PR01] no machine of app {wish.app} can take this now")


def _unfit(target: Target, loads: Loads) -> Refusal | None:
    machine, service = target.machine, target.service
    who = f"machine {machine.id}"
    if machine.cordoned:
        return Refusal(f"[PR01] {who} is cordoned; uncordon it to route to it")
    if machine.state in STARTABLE:
        return _asleep(machine, who)
    if machine.state in PASSING_BY:
        return Refusal(f"[PM05] {who} is {machine.state}", passing=True)
    if machine.state in STOPPING:
        text = f"[PM09] {who} is in a non-startable state: {machine.state}"
        return Refusal(text, passing=bool(service.autostart))
    if machine.state != "started":
        return Refusal(f"[PM09] {who} is in a non-startable state: {machine.state}")
    if service.internal_port in machine.failing:
        return Refusal(f"[PR01] the checks of {who} do not pass", passing=True)
    limit = hard_limit(service)
    if limit is not None and loads.of(machine.id, service.internal_port) >= limit:
        return Refusal(f"[PR03] {who} is at its hard limit of {limit}", passing=True)
    return None


def _asleep(machine: MachineRecord, who: str) -> Refusal:
    if machine.leased:
        return Refusal(f"[PM01] {who} is {machine.state} and leased, so it cannot be started")
    return Refusal(
        f"[PR01] {who} is {machine.state} and not started by traffic; "
        "start it, or set autostart: true on its service"
    )


def _overloaded(target: Target, loads: Loads) -> bool:
    load = loads.of(target.machine.id, target.service.internal_port)
    return load >= soft_limit(target.service)


def _region_rank(region: str, wish: Wish, edge: str) -> tuple[int, float]:
    order = (index for index, group in enumerate(wish.regions) if region in group)
    return next(order, len(wish.regions)), distance(edge, region)
