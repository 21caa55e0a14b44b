"""Machines and volumes that runs left behind: find them by our marks, destroy what is overdue."""

from __future__ import annotations

import time
from collections.abc import Callable, Container
from dataclasses import dataclass
from datetime import datetime

from pytest_flymachines.api import Machine, MachinesClient, Volume
from pytest_flymachines.deadline import left_s
from pytest_flymachines.errors import ApiError, FlyMachinesError, NotFound
from pytest_flymachines.marks import (
    DEADLINE_KEY,
    OWNER_KEY,
    RUN_KEY,
    TTL_KEY,
    grace_s,
    volume_run,
    volume_ttl_s,
)

__all__ = [
    "GONE",
    "OurMachine",
    "destroy_verified",
    "ours",
    "still_overdue",
    "stray_volumes",
    "sweep",
]

GONE = frozenset({"destroying", "destroyed", "replaced", "migrated"})
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
        return now > self.deadline + grace_s(self.ttl_s)

    def run_alive(self, now: float) -> bool:
        """Whether its run may be alive: the last renewal is not older than it should be."""
        return self.deadline - now > self.ttl_s * 2 / 3 - grace_s(self.ttl_s)


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


def sweep(
    client: MachinesClient, app: str, enough: Callable[[], bool] = lambda: False
) -> list[str]:
    """Destroy what is ours and overdue, and volumes that nobody uses; ids of what is gone.

    Args:
        client: Of the API.
        app: App name.
        enough: Asked before each request that destroys; true ends the sweep.

    Raises:
        ApiError: The app cannot be listed.
        ApiUnreachable: No answer.
    """
    machines = ours(client, app)
    gone: list[str] = []
    for one in machines:
        if enough():
            return gone
        if not one.overdue(time.time()) or not still_overdue(client, one):
            continue
        if destroy_verified(client, app, one.machine.id) is None:
            gone.append(one.machine.id)
    alive = {volume_run(one.run) for one in machines if one.machine.id not in gone}
    for volume in stray_volumes(client, app, alive, time.time()):
        if enough():
            return gone
        try:
            client.delete_volume(app, volume.id)
        except FlyMachinesError:  # the bond with its machine lingers: the next sweep's
            continue
        gone.append(volume.id)
    return gone


def still_overdue(client: MachinesClient, one: OurMachine) -> bool:
    """Ask the machine's host, because lists lag and may show an old deadline; and the machine.

    The clock here, or that of the run, may be wrong: one that runs knows better when it ends.
    """
    try:
        machine = client.get_machine(one.app, one.machine.id)
    except FlyMachinesError:
        return False
    if RUN_KEY not in machine.metadata or not _our(one.app, machine).overdue(time.time()):
        return False
    return machine.state != "started" or left_s(client, one.app, machine.id) <= 0


def stray_volumes(
    client: MachinesClient, app: str, alive: Container[str], now: float
) -> list[Volume]:
    """Volumes whose name is ours, that no machine holds and whose run is over.

    Args:
        client: Of the API.
        app: App name.
        alive: Beginnings of the names of volumes whose runs have machines, see `volume_run`.
        now: Seconds since the epoch.
    """
    return [
        volume
        for volume in client.list_volumes(app)
        if (ttl_s := volume_ttl_s(volume.name)) is not None
        and volume.name.rpartition("_")[0] not in alive
        and not volume.attached_machine_id
        and now - _epoch(volume.created_at) > ttl_s + grace_s(ttl_s)
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
