"""Moves the deadlines of a run's machines on, and sweeps up what earlier runs left."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from pytest_flymachines.api import MachinesClient
from pytest_flymachines.deadline import renew
from pytest_flymachines.errors import FlyMachinesError, NotFound
from pytest_flymachines.sharing import SharedState
from pytest_flymachines.sweep import ours, sweep

__all__ = ["KeepAlive"]


class KeepAlive:
    """Moves the deadline of every machine of the run, until closed.

    One thread in the controller serves all workers, so the number of requests does not grow
    with them: an exec and a metadata write for each machine, every third of the TTL. When one
    fails, the next third is not waited for.

    Attributes:
        swept: Ids of machines and volumes of earlier runs that it removed.
    """

    def __init__(
        self,
        make_client: Callable[[], AbstractContextManager[MachinesClient]],
        state: SharedState,
        ttl_s: int,
        *,
        run_id: str,
        user: str = "",
        sweep_app: str = "",
        apps: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        """Start.

        Args:
            make_client: Makes the thread's own client, closed when it ends.
            state: Knows the machines.
            ttl_s: Their time to live, in seconds.
            run_id: Of the run.
            user: Of several shards that use the machines, this one.
            sweep_app: App to sweep first; empty: none.
            apps: Where to look for machines of the run of which `state` does not know.
        """
        self.swept: list[str] = []
        self._make_client = make_client
        self._state = state
        self._ttl_s = ttl_s
        self._run_id = run_id
        self._user = user
        self._sweep_app = sweep_app
        self._apps = apps
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="fly-keepalive", daemon=True)
        self._thread.start()

    def close(self, within_s: float = 2.0) -> None:
        """Stop; a request that is under way is not waited for longer than this."""
        self._stop.set()
        self._thread.join(within_s)

    def _work(self) -> None:
        with self._make_client() as client:
            if self._sweep_app:
                with contextlib.suppress(FlyMachinesError):
                    self.swept += sweep(client, self._sweep_app, self._stop.is_set)
            pause_s = self._ttl_s / 3
            while not self._stop.wait(pause_s):
                pause_s = self._ttl_s / (3 if self._renew_all(client) else 12)

    def _renew_all(self, client: MachinesClient) -> bool:
        """Whether all were renewed that are still there."""
        known = {
            (i.app, i.machine_id) for i in self._state.intents() if i.machine_id and not i.over
        }
        good = True
        for app in self._apps():
            try:
                known |= {(app, one.machine.id) for one in ours(client, app, run=self._run_id)}
            except FlyMachinesError:
                good = False
        for app, machine_id in sorted(known):
            if self._stop.is_set():
                break
            try:
                renew(client, app, machine_id, self._ttl_s, user=self._user)
            except NotFound:
                continue
            except FlyMachinesError:
                good = False
        return good
