"""Machines with a `schedule`: started by the platform, again and again.

The interval counts from the creation of the machine.
Source: https://fly.io/docs/machines/flyctl/fly-machine-run/#start-a-machine-on-a-schedule.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pytest_flymachines.emulator.wiretime import now_ms

if TYPE_CHECKING:
    from pytest_flymachines.emulator.flyd import Flyd
    from pytest_flymachines.emulator.lifecycle import Life

__all__ = ["HOURS", "Schedules"]

HOURS = {"hourly": 1, "daily": 24, "weekly": 7 * 24, "monthly": 730}


class Schedules:
    """The next run of every scheduled machine."""

    def __init__(self, flyd: Flyd) -> None:
        self._flyd = flyd
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def arm(self, life: Life) -> None:
        """Set the timer of a machine as its config wants it now."""
        machine = life.machine
        self.disarm(machine.id)
        hours = HOURS.get(machine.config.schedule)
        if hours is None or machine.destroyed_ms:
            return
        every_s = hours * self._flyd.timings.hour_s
        age_s = (now_ms() - machine.created_ms) / 1000
        loop = asyncio.get_running_loop()
        self._timers[machine.id] = loop.call_later(every_s - age_s % every_s, self._run, life)

    def disarm(self, machine_id: str) -> None:
        """Forget a machine."""
        if timer := self._timers.pop(machine_id, None):
            timer.cancel()

    def _run(self, life: Life) -> None:
        # One that was made with `skip_launch` waits for its first start by hand.
        machine = life.machine
        at_rest = machine.state in ("stopped", "failed") and machine.host_status == "ok"
        if machine.launched and at_rest:
            life.start(source="flyd")
        self.arm(life)
