"""Hosts that fail, and the standby machines that take over.

Every machine here has a host of its own; it fails when a fault says so, and is back when the fault
is removed. Meanwhile nothing of the machine runs, it cannot be acted on, and what is known of it
is from before. Machines that have it among their `standbys` are started, also when it is one of
several (https://github.com/superfly/flyctl/pull/3800). What becomes of them once it is back is not
written anywhere: here they are stopped, unless somebody else has started them.
Sources: https://fly.io/docs/apps/app-availability/, fly-go.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pytest_flymachines.emulator.answers import Problem
from pytest_flymachines.emulator.wiretime import now_ms

if TYPE_CHECKING:
    from pytest_flymachines.emulator.faults import Fault
    from pytest_flymachines.emulator.flyd import Flyd
    from pytest_flymachines.emulator.lifecycle import Life
    from pytest_flymachines.emulator.work import Work

__all__ = ["Hosts"]


class Hosts:
    """The hosts of all machines."""

    def __init__(self, flyd: Flyd) -> None:
        self._flyd = flyd
        self._down: dict[str, int] = {}
        self._standing_in: set[str] = set()

    def arrange(self, life: Work, *, only: int | None = None) -> None:
        """Have a machine's host fail some time after its start, if a fault says so.

        Args:
            life: The machine.
            only: Id of the one fault to look at.
        """
        fault = self._flyd.faults.take("host-failure", life.machine, life.cause, only=only)
        if fault is not None:
            self._flyd.spawn(self._fail_later(life, fault), f"host of {life.machine.id}")

    def arrange_all(self, only: int) -> None:
        """As `arrange`, for the machines that were there before this fault."""
        for life in list(self._flyd.lives.values()):
            if not life.machine.destroyed_ms:
                self.arrange(life, only=only)

    def repair(self) -> None:
        """Bring back the hosts whose fault is no longer in force."""
        in_force = {fault.id for fault in self._flyd.faults.all()}
        back = [machine for machine, fault in self._down.items() if fault not in in_force]
        for machine_id in back:
            del self._down[machine_id]
            if life := self._flyd.lives.get(machine_id):
                self._flyd.log(life.machine, "the host is back")
                life.regain_host()
        for standby in list(self._standing_in):
            life = self._flyd.lives.get(standby)
            watched = life.machine.config.standbys or () if life else ()
            if not self._down.keys() & set(watched):
                self._standing_in.discard(standby)
                if life and life.machine.state == "started":
                    life.stop(None, None, source="flyd")

    async def _fail_later(self, life: Work, fault: Fault) -> None:
        machine = life.machine
        if fault.delay_s:
            ran_s = (now_ms() - machine.started_ms) / 1000 if machine.state == "started" else 0.0
            await asyncio.sleep(max(0.0, fault.delay_s - ran_s))
        removed = fault not in self._flyd.faults.all()
        if removed or machine.destroyed_ms or machine.id in self._down:
            return
        self._down[machine.id] = fault.id
        self._flyd.log(machine, "the host does not answer")
        life.lose_host()
        for other in list(self._flyd.lives.values()):
            same = other.machine.app == machine.app
            if same and machine.id in (other.machine.config.standbys or ()):
                self._take_over(other)

    def _take_over(self, standby: Life) -> None:
        if standby.machine.state == "started" or standby.machine.host_status != "ok":
            return
        try:
            standby.start(source="flyd")
        except Problem as problem:
            self._flyd.log(standby.machine, f"standby was not started: {problem.text}")
        else:
            self._standing_in.add(standby.machine.id)
