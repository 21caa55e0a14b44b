"""Machines and volumes that runs left behind: find them by our marks, destroy what is overdue."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from pytest_flymachines.api import Machine, MachinesClient, Volume
from pytest_flymachines.creation import OWNER_KEY, RUN_KEY, VOLUME_PREFIX, volume_name
from pytest_flymachines.deadline import DEADLINE_KEY, TTL_KEY
from pytest_flymachines.errors import ApiError, FlyMachinesError, NotFound

__all__ = ["GONE", "OurMachine", "destroy_verified", "ours", "stray_volumes", "sweep"]

GONE = frozenset({"destroying", "destroyed", "replaced", "migrated"})
# A run renews well before its deadline; clocks of two computers may disagree by this much.
GRACE_S = 120
# A volume is made shortly before its machine.
VOLUME_AGE_S = 900
_TRIES = 4


@dataclass(frozen=True, kw_only=True)
class OurMachine:
    """A machine that carries our metadata.

    Attributes:
        app: Its app.
        machine: As listed.
        run: Id of the run that made it.
        owner: user@host of that run.
        deadline: Seconds since the epoch after which nobody uses it, by its run's clock.
        ttl_s: What each renewal adds; a run renews at a third of it.
        age_s: Since it was created.
    """

    app: str
    machine: Machine
    run: str
    owner: str
    deadline: float
    ttl_s: float
    age_s: float

    def overdue(self, now: float) -> bool:
        """Whether the machine should have ended itself by now."""
        return now > self.deadline + GRACE_S

    def run_alive(self, now: float) -> bool:
        """Whether its run may be alive: the last renewal is not older than it should be."""
        return self.deadline - now > self.ttl_s * 2 / 3 - GRACE_S


def ours(client: MachinesClient, app: str, *, run: str | None = None) -> list[OurMachine]:
    """Every machine of an app that carries our metadata, oldest first.

    Args:
        client: Of the API.
        app: App name.
        run: Only machines of this run.
    """
    metadata = {RUN_KEY: run} if run else None
    found = [
        _our(app, machine)
        for machine in client.list_machines(app, metadata=metadata)
        if machine.state not in GONE and RUN_KEY in machine.metadata
    ]
    return sorted(found, key=lambda one: one.machine.created_at)


def sweep(client: MachinesClient, app: str) -> list[str]:
    """Destroy what is ours and overdue, with its volumes; ids of what is gone.

    Never touches a machine without our metadata, nor one whose run is alive.
    """
    now = time.time()
    machines = ours(client, app)
    overdue = [one for one in machines if one.overdue(now)]
    gone = [
        one.machine.id for one in overdue if destroy_verified(client, app, one.machine.id) is None
    ]
    alive = {one.run for one in machines if not one.overdue(now)}
    for volume in stray_volumes(client, app, alive, now):
        client.delete_volume(app, volume.id)
        gone.append(volume.id)
    return gone


def stray_volumes(
    client: MachinesClient, app: str, alive: Iterable[str], now: float
) -> list[Volume]:
    """Volumes that bear our name, belong to no run that is alive, and are bound to nothing."""
    kept = {volume_name(run) for run in alive}
    return [
        volume
        for volume in client.list_volumes(app)
        if volume.name.startswith(VOLUME_PREFIX)
        and volume.name not in kept
        and not volume.attached_machine_id
        and "destroy" not in volume.state
        and now - _epoch(volume.created_at) > VOLUME_AGE_S
    ]


def destroy_verified(
    client: MachinesClient,
    app: str,
    machine_id: str,
    sleep: Callable[[float], None] = time.sleep,
) -> FlyMachinesError | None:
    """Destroy a machine and look whether it is gone; the last error if it is not."""
    last: FlyMachinesError | None = None
    for attempt in range(_TRIES):
        sleep(attempt)
        try:
            client.destroy_machine(app, machine_id, force=True)
            if (state := client.get_machine(app, machine_id).state) in GONE:
                return None
            path = f"/v1/apps/{app}/machines/{machine_id}"
            last = ApiError("DELETE", path, 200, f"accepted, but the machine is {state}")
        except NotFound:
            return None
        except FlyMachinesError as error:
            last = error
    return last


def _our(app: str, machine: Machine) -> OurMachine:
    metadata = machine.metadata
    created = _epoch(machine.created_at)
    deadline = metadata.get(DEADLINE_KEY, "")
    ttl = metadata.get(TTL_KEY, "")
    return OurMachine(
        app=app,
        machine=machine,
        run=metadata[RUN_KEY],
        owner=metadata.get(OWNER_KEY, "?"),
        deadline=float(deadline) if deadline.isdecimal() else created,
        ttl_s=float(ttl) if ttl.isdecimal() else 0.0,
        age_s=time.time() - created,
    )


def _epoch(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
