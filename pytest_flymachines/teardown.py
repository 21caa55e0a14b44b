"""The end of a run: destroy what it made, look whether it is gone, and say what is not."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from pytest_flymachines.api import Machine, MachinesClient
from pytest_flymachines.deadline import renew
from pytest_flymachines.errors import FlyMachinesError, NotFound, WaitTimeout
from pytest_flymachines.marks import RUN_KEY, USER_PREFIX, grace_s, volume_run
from pytest_flymachines.prices import SOURCE
from pytest_flymachines.progress import Progress, silent
from pytest_flymachines.settings import Settings
from pytest_flymachines.sharing import Intent, SharedState
from pytest_flymachines.sweep import GONE, destroy_verified
from pytest_flymachines.volumes import delete_volume, volumes_of

__all__ = ["Outcome", "Teardown"]

T = TypeVar("T")
# A create that a killed worker sent may still be on its way into the lists.
LIST_LAG_S = 4.0


@dataclass
class Outcome:
    """How the end of a run went.

    Attributes:
        destroyed: Machines that are verified gone.
        kept: Machines left behind as asked, with how to reach them.
        shared: Machines that other shards of the run still use.
        left: Machines or volumes that could not be removed, with the command that does.
        usage: What was used, in one line; empty if nothing was.
    """

    destroyed: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    shared: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    usage: str = ""


class Teardown:
    """Takes down what one run made, found by its metadata.

    Args:
        client: Of the API.
        settings: What the user asked for.
        run_id: Of the run.
        state: What its processes noted.
        user: Of several shards of the run, this one; empty if it is the only one.
        apps: Apps to look in, beside those that the processes on this computer used.
    """

    def __init__(
        self,
        client: MachinesClient,
        settings: Settings,
        run_id: str,
        state: SharedState,
        *,
        user: str = "",
        apps: Sequence[str] = (),
    ) -> None:
        self._client = client
        self._settings = settings
        self._run_id = run_id
        self._state = state
        self._user = user
        self._apps = apps

    def run(
        self,
        *,
        keep: bool,
        within_s: float,
        reach: Callable[[Machine, float], str],
        progress: Progress = silent,
    ) -> Outcome:
        """Destroy, and verify. A run that created nothing makes no request.

        Args:
            keep: Leave the machines, with all the time to live that they can have.
            within_s: Seconds after which what is under way is given up.
            reach: Says how to reach a machine that is kept for so many seconds.
            progress: Told what is being done.
        """
        outcome = Outcome()
        deadline = time.monotonic() + within_s
        intents = self._state.intents()
        for app in sorted({intent.app for intent in intents} | set(self._apps)):
            noted = [intent for intent in intents if intent.app == app]
            machines = self._machines(app, noted, outcome)
            if keep:
                outcome.kept += [self._keep(app, machine, reach) for machine in machines]
            else:
                self._destroy(app, machines, noted, deadline, outcome, progress)
        outcome.usage = _usage(intents, live=self._settings.chosen == "live")
        return outcome

    def _machines(self, app: str, noted: Sequence[Intent], outcome: Outcome) -> list[Machine]:
        """By the list, and by id for those that a list does not show: it lags, or is broken."""
        found: dict[str, Machine] = {}
        try:
            found = self._listed(app)
            unknown = {i.name for i in noted if not i.machine_id and not i.over}
            until = time.monotonic() + LIST_LAG_S
            while unknown - {m.name for m in found.values()} and time.monotonic() < until:
                time.sleep(1)
                found |= self._listed(app)
        except FlyMachinesError as error:
            outcome.left.append(
                f"app {app} could not be listed ({error}); what else the run left there goes by "
                f"pytest-flymachines reap --run {self._run_id} -a {app}"
            )
        for machine_id in {intent.machine_id for intent in noted} - {"", *found}:
            try:
                found[machine_id] = self._client.get_machine(app, machine_id)
            except NotFound:
                continue
            except FlyMachinesError as error:
                outcome.left.append(
                    f"machine {machine_id} ({error}): "
                    f"fly machine destroy --force {machine_id} -a {app}"
                )
        return [machine for machine in found.values() if machine.state not in GONE]

    def _listed(self, app: str) -> dict[str, Machine]:
        listed = self._client.list_machines(app, metadata={RUN_KEY: self._run_id})
        return {machine.id: machine for machine in listed}

    def _keep(self, app: str, machine: Machine, reach: Callable[[Machine, float], str]) -> str:
        left_s = float(self._settings.ttl)
        with contextlib.suppress(FlyMachinesError):
            left_s = renew(self._client, app, machine.id, left_s)
        return reach(machine, left_s)

    def _destroy(
        self,
        app: str,
        machines: list[Machine],
        noted: Sequence[Intent],
        deadline: float,
        outcome: Outcome,
        progress: Progress,
    ) -> None:
        if self._user:
            machines = self._without_used(app, machines, outcome)
        if machines:
            progress(f"destroying {len(machines)} machine(s) in {app}")
        results = _in_parallel(
            lambda m: destroy_verified(self._client, app, m.id), machines, deadline
        )
        for machine, error in zip(machines, results, strict=True):
            if error is None:
                outcome.destroyed.append(machine.id)
                continue
            outcome.left.append(
                f"machine {machine.id} ({error}): fly machine destroy --force {machine.id} -a {app}"
            )
        held = {v for m in machines for v in volumes_of(m)} | {i.volume_id for i in noted} - {""}
        if held or self._settings.volume_gb:
            self._delete_volumes(app, held, deadline, outcome)

    def _without_used(self, app: str, machines: list[Machine], outcome: Outcome) -> list[Machine]:
        """Those that no other shard uses; this one says first that it does not any more."""
        free = []
        for machine in machines:
            key = USER_PREFIX + self._user
            with contextlib.suppress(FlyMachinesError):
                self._client.delete_metadata(app, machine.id, key)
            try:
                now = self._client.get_machine(app, machine.id)
            except NotFound:
                continue
            except FlyMachinesError as error:
                outcome.left.append(f"machine {machine.id} of several shards ({error})")
                continue
            latest = time.time() - grace_s(self._settings.ttl)
            others = [
                name
                for name, value in now.metadata.items()
                if name.startswith(USER_PREFIX)
                and name != key
                and value.isdecimal()
                and float(value) > latest
            ]
            if others:
                outcome.shared.append(
                    f"machine {machine.id} is used by {len(others)} other shard(s) of run "
                    f"{self._run_id}: the last one ends it, or its deadline does"
                )
            else:
                free.append(now)
        return free

    def _delete_volumes(self, app: str, held: set[str], deadline: float, outcome: Outcome) -> None:
        """Those of the machines and, where the run is ours alone, all that bear its name."""
        mark = volume_run(self._run_id)
        try:
            volumes = [
                volume
                for volume in self._client.list_volumes(app)
                if volume.name.startswith(mark) and (volume.id in held or not self._user)
            ]
        except FlyMachinesError as error:
            outcome.left.append(
                f"volumes of the run ({error}): "
                f"pytest-flymachines reap --run {self._run_id} -a {app}"
            )
            return
        if self._user:
            used = {i for text in outcome.shared for i in text.split()}
            volumes = [v for v in volumes if v.attached_machine_id not in used]

        def delete(volume_id: str) -> FlyMachinesError | None:
            within_s = max(0.0, deadline - time.monotonic() - 1)
            try:
                delete_volume(self._client, app, volume_id, within_s=min(60.0, within_s))
            except FlyMachinesError as error:
                return error
            return None

        ids = [volume.id for volume in volumes]
        for volume_id, failure in zip(ids, _in_parallel(delete, ids, deadline), strict=True):
            if failure is not None:
                outcome.left.append(
                    f"volume {volume_id} ({failure}): fly volumes destroy {volume_id} -a {app}"
                )


def _in_parallel(
    work: Callable[[T], FlyMachinesError | None], items: Sequence[T], deadline: float
) -> list[FlyMachinesError | None]:
    """The error of each, or None; a second Ctrl-C, or the deadline, waits for none of them."""
    late = WaitTimeout("not done in the time that there was")
    results: list[FlyMachinesError | None] = [late] * len(items)

    def one(number: int, item: T) -> None:
        try:
            results[number] = work(item)
        except FlyMachinesError as error:
            results[number] = error

    threads = [
        threading.Thread(target=one, args=pair, name="fly-teardown", daemon=True)
        for pair in enumerate(items)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return list(results)


def _usage(intents: Sequence[Intent], *, live: bool) -> str:
    """Machines, seconds and, at Fly, the estimated cost."""
    mine = [intent for intent in intents if intent.machine_id and not intent.adopted]
    if not mine:
        return ""
    now = time.time()
    seconds = sum(now - intent.began for intent in mine)
    text = f"{len(mine)} machine(s), {seconds:.0f} s"
    if not live:
        return text
    unknown = sum(intent.hourly_usd is None for intent in mine)
    if unknown == len(mine):
        return f"{text}, cost unknown: no price for this guest in {SOURCE}"
    usd = sum((now - i.began) / 3600 * i.hourly_usd for i in mine if i.hourly_usd is not None)
    besides = f" and {unknown} machine(s) of unknown price" if unknown else ""
    return f"{text}, about ${usd:.4f}{besides} ({SOURCE})"
