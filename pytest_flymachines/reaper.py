"""What `pytest-flymachines reap` destroys: chosen first, shown, then carried out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pytest_flymachines.api import MachinesClient, Volume
from pytest_flymachines.errors import FlyMachinesError
from pytest_flymachines.marks import volume_run
from pytest_flymachines.run import owner
from pytest_flymachines.sweep import (
    OurMachine,
    destroy_verified,
    ours,
    still_overdue,
    stray_volumes,
)
from pytest_flymachines.volumes import delete_volume, volumes_of

__all__ = ["Plan", "carry_out", "plan"]


@dataclass(frozen=True)
class Plan:
    """Machines, and (app, volume) pairs, that would go."""

    machines: Sequence[OurMachine]
    volumes: Sequence[tuple[str, Volume]]

    def __len__(self) -> int:
        return len(self.machines) + len(self.volumes)

    def lines(self) -> Iterator[str]:
        """One line for each."""
        for one in self.machines:
            yield (
                f"machine {one.machine.id} ({one.machine.state}) in {one.app}, "
                f"run {one.run} of {one.owner}, {one.age_s:.0f} s old"
            )
        for app, volume in self.volumes:
            yield f"volume {volume.id} ({volume.size_gb} GB) in {app}"


def plan(
    client: MachinesClient,
    apps: Sequence[str],
    *,
    run: str | None = None,
    older_than_s: float | None = None,
    all_mine: bool = False,
) -> Plan:
    """Choose; without a choice, what is past its deadline.

    A run that is alive is left alone unless `run` names it. The volumes of a machine go with
    it, and so do those of runs that have no machine any more.
    """
    now = time.time()
    chosen: list[OurMachine] = []
    volumes: list[tuple[str, Volume]] = []
    for app in apps:
        found = ours(client, app)
        picked = [
            one
            for one in found
            if _picked(one, now, run, older_than_s, all_mine)
            # by a clock that may be wrong, where no run was named
            and (run is not None or not one.overdue(now) or still_overdue(client, one))
        ]
        chosen += picked
        bound = {volume_id for one in picked for volume_id in volumes_of(one.machine)}
        kept = {volume_run(one.run) for one in found if one not in picked}
        stray = {volume.id for volume in stray_volumes(client, app, kept, now)}
        mark = volume_run(run) if run is not None else None
        volumes += [
            (app, volume)
            for volume in client.list_volumes(app)
            if (volume.id in bound | stray if mark is None else volume.name.startswith(mark))
        ]
    return Plan(chosen, volumes)


def _picked(
    one: OurMachine, now: float, run: str | None, older_than_s: float | None, all_mine: bool
) -> bool:
    if run is not None:
        return one.run == run
    if older_than_s is not None and one.age_s <= older_than_s:
        return False
    if one.overdue(now):
        return True
    if one.run_alive(now) or (older_than_s is None and not all_mine):
        return False
    return not all_mine or one.owner == owner()


def carry_out(client: MachinesClient, plan: Plan) -> list[str]:
    """Destroy; what could not be, with the reason."""
    left = [
        f"machine {one.machine.id} in {one.app}: {error}"
        for one in plan.machines
        if (error := destroy_verified(client, one.app, one.machine.id))
    ]
    for app, volume in plan.volumes:
        try:
            delete_volume(client, app, volume.id)
        except FlyMachinesError as error:
            left.append(f"volume {volume.id} in {app}: {error}")
    return left
