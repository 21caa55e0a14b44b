"""The life of one machine: what is asked of it, accepted or refused by its state.

An action is accepted or refused at once, as flyd does; the work then goes on in the background,
see `work`. A later action supersedes a boot that is still under way. States and refusals:
https://fly.io/docs/machines/machine-states/ and answers of the live API.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable

from pytest_flymachines.emulator.answers import conflict, failed_precondition
from pytest_flymachines.emulator.config import MachineConfig
from pytest_flymachines.emulator.engines.base import ExitStatus
from pytest_flymachines.emulator.faults import cause
from pytest_flymachines.emulator.journal import exit_happening
from pytest_flymachines.emulator.refusals import (
    refuse_destroy,
    refuse_restart,
    refuse_start,
    refuse_suspend,
    unable,
)
from pytest_flymachines.emulator.work import Work

__all__ = ["Life"]


class Life(Work):
    """One machine from create to destroy: what is asked of it."""

    def launch(self, *, skip: bool) -> None:
        """Prepare a machine that was just created, and start it unless `skip`."""
        self._journal.enter("created", ("launch", "created", "user"))
        self._begin(lambda mine: self._prepare(mine, skip=skip))

    def start(self, source: str = "user") -> str:
        """Start or resume; a machine with a schedule is the platform's to start.

        Returns:
            The state it was in.
        """
        previous = self.machine.state
        refuse_start(self.machine, by_schedule=source == "flyd")
        if previous == "started":
            return previous
        self._reserve()
        self._journal.enter("starting", ("start", "starting", source))
        self._begin(lambda mine: self._start(mine, previous))
        return previous

    def stop(self, signal_name: str | None, timeout_s: float | None, source: str = "user") -> None:
        """Stop; a machine that is stopped or stopping stays so."""
        match self.machine.state:
            case "stopped" | "stopping":
                return
            case "destroying" | "destroyed":
                raise unable("stop", self.machine)
        number, grace_s = self._how_to_stop(signal_name, timeout_s)
        self._journal.enter("stopping", ("stop", "stopping", source))
        self._begin(lambda mine: self._stop(mine, number, grace_s))

    def suspend(self, source: str = "user") -> None:
        """Freeze; a suspended machine stays so."""
        if self.machine.state == "suspended":
            return
        refuse_suspend(self.machine)
        self._journal.enter("suspending", ("suspend", "suspending", source))
        self._begin(self._suspend)

    def restart(
        self, signal_name: str | None, timeout_s: float | None, *, force: bool = False
    ) -> None:
        """End the main process and boot again; a stopped machine is just started."""
        refuse_restart(self.machine)
        number, grace_s = self._how_to_stop(signal_name, timeout_s)
        self._reserve()
        self._journal.enter("restarting", ("restart", "restarting", "user"))
        self._begin(lambda mine: self._restart(mine, number, 0.0 if force else grace_s))

    def replace(self, apply: Callable[[], None], *, skip_launch: bool) -> None:
        """Put a new version of the config in force.

        Args:
            apply: Changes the record, once the update is accepted.
            skip_launch: Leave a machine that ran stopped.
        """
        previous = self.machine.state
        if previous in ("replacing", "updating"):
            raise conflict("machine update failed due to concurrent update")
        if previous in ("destroying", "destroyed"):
            raise unable("update", self.machine)
        self._reserve()
        ending = self._how_to_stop(None, None)
        apply()
        self._journal.enter("replacing", ("update", "replacing", "user"))
        self._begin(lambda mine: self._replace(mine, previous, ending, skip_launch=skip_launch))

    def destroy(self, *, force: bool, source: str = "user") -> None:
        """End the machine for good."""
        state = self.machine.state
        if state in ("destroying", "destroyed"):
            return
        refuse_destroy(self.machine, force=force)
        self._hurry.set()
        self._journal.enter("destroying", ("destroy", "destroying", source))
        self._begin(self._destroy)

    def signal(self, number: int) -> None:
        """Send a signal to the main process."""
        if self.machine.state != "started" or self.running is None:
            raise failed_precondition("machine not running")
        with contextlib.suppress(ProcessLookupError):
            self.running.signal(number)

    async def over(self) -> None:
        """Until the work that was begun is done."""
        async with self._turn:
            pass

    async def shut_down(self) -> None:
        """End what runs because the emulator ends; the record says so for the next start."""
        self._hurry.set()
        self._supersede()
        async with self._turn:
            if self._run is None:
                return
            frozen = self._run.frozen
            status = await self._end(self._run, signal.SIGKILL, 0)
            if not frozen:
                self._journal.enter("stopped", exit_happening(self.machine, status, requested=True))

    def recover(self) -> None:
        """After the end of the emulator nothing runs; a suspended machine starts cold."""
        self.machine.host_status = "ok"
        match self.machine.state:
            case "destroying" | "launch_failed":
                self.destroy_again()
            case "destroyed" | "stopped" | "suspended" | "failed":
                pass
            case "started":
                lost = ExitStatus(exit_code=137, signal=signal.SIGKILL)
                self._journal.enter("stopped", exit_happening(self.machine, lost, requested=False))
            case _:
                self._journal.enter("stopped")

    def destroy_again(self) -> None:
        """Finish a destroy that the end of the emulator cut short."""
        self._begin(self._destroy)

    def _reserve(self) -> None:
        if self._flyd.faults.take("capacity", self.machine, cause()):
            raise conflict(
                "could not reserve resource for machine: "
                "insufficient memory available to fulfill request"
            )

    def _how_to_stop(self, name: str | None, timeout_s: float | None) -> tuple[int, float]:
        config = self.machine.config.stop_config
        if not name and config:
            name = config.signal
        if not timeout_s and config and config.timeout:
            timeout_s = config.timeout.seconds
        if not timeout_s:
            timeout_s = max(_container_timeouts_s(self.machine.config), default=None)
        number = signal.Signals[name] if name else signal.SIGINT
        return number, min(timeout_s or self._flyd.timings.stop_timeout_s, 300.0)


def _container_timeouts_s(config: MachineConfig) -> list[float]:
    return [
        container.stop.timeout.seconds
        for container in config.containers or ()
        if container.stop and container.stop.timeout
    ]
