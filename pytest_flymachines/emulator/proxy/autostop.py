"""Which machines traffic does not need any more.

Source: https://fly.io/docs/reference/fly-proxy-autostop-autostart/.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pytest_flymachines.emulator.config import Service
from pytest_flymachines.emulator.proxy.directory import MachineRecord
from pytest_flymachines.emulator.proxy.loads import Loads, soft_limit

__all__ = ["Action", "excess"]

Action = Literal["stop", "suspend"]
ACTIONS: dict[bool | str | None, Action] = {True: "stop", "stop": "stop", "suspend": "suspend"}


def excess(machines: Iterable[MachineRecord], loads: Loads, *, idle_s: float) -> dict[str, Action]:
    """The machines of an app to stop or suspend in this pass: at most one per region.

    Processes of different groups are different programs, so each group counts for itself.

    Args:
        machines: All machines of the app.
        loads: What each has to do.
        idle_s: A machine without work is left alone until this long after the last.

    Returns:
        What to do, by machine id.
    """
    groups: dict[tuple[str, str], list[MachineRecord]] = {}
    for machine in machines:
        if machine.state != "started":
            loads.forget(machine.id)
        elif machine.config.services:
            group = (machine.config.metadata or {}).get("fly_process_group", "")
            groups.setdefault((machine.region, group), []).append(machine)
    chosen = (_one_of(group, loads, idle_s) for group in groups.values())
    return {machine.id: action for machine, action in filter(None, chosen)}


def _one_of(
    running: list[MachineRecord], loads: Loads, idle_s: float
) -> tuple[MachineRecord, Action] | None:
    """The machine of one group in one region that is too much, with what to do."""
    if len(running) <= max(map(_minimum, running)):
        return None
    if len(running) > 1:
        busy = sum(_over_soft_limit(machine, loads) for machine in running)
        if len(running) - (busy + 1) < 1:
            return None
    stoppable = [
        (machine, action)
        for machine in running
        if (action := _action(machine)) and (len(running) > 1 or not _load(machine, loads))
        if _load(machine, loads) or loads.idle_s(machine.id) >= idle_s
    ]
    return min(stoppable, key=lambda one: _load(one[0], loads), default=None)


def _action(machine: MachineRecord) -> Action | None:
    """What its services agree on: one that must stay up keeps the machine up."""
    wanted = [ACTIONS.get(service.autostop) for service in machine.config.services or ()]
    return None if None in wanted else "suspend" if "suspend" in wanted else "stop"


def _minimum(machine: MachineRecord) -> int:
    """How many are to keep running where this machine is."""
    primary = (machine.config.env or {}).get("PRIMARY_REGION", machine.region)
    if machine.region != primary:
        return 0
    return max((service.min_machines_running or 0) for service in machine.config.services or ())


def _load(machine: MachineRecord, loads: Loads) -> int:
    return sum(_service_load(machine, service, loads) for service in machine.config.services or ())


def _over_soft_limit(machine: MachineRecord, loads: Loads) -> bool:
    return any(
        _service_load(machine, service, loads) > soft_limit(service)
        for service in machine.config.services or ()
    )


def _service_load(machine: MachineRecord, service: Service, loads: Loads) -> int:
    return loads.of(machine.id, service.internal_port)
