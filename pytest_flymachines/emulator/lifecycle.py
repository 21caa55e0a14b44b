"""The life of one machine: its state, what runs, and the work between states.

An action is accepted or refused at once by the state, as flyd does; the work then goes on in
the background, one job at a time. A later action supersedes a boot that is still under way.
States and refusals: https://fly.io/docs/machines/machine-states/ and answers of the live API.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Literal

from pytest_flymachines.emulator import restart
from pytest_flymachines.emulator.answers import conflict, failed_precondition
from pytest_flymachines.emulator.config import MachineConfig
from pytest_flymachines.emulator.engines.base import EngineError, ExitStatus, RunningMachine
from pytest_flymachines.emulator.faults import Cause, Fault, cause
from pytest_flymachines.emulator.guestrun import GuestRun
from pytest_flymachines.emulator.journal import Journal, exit_happening
from pytest_flymachines.emulator.model import Machine
from pytest_flymachines.emulator.refusals import (
    refuse_destroy,
    refuse_restart,
    refuse_start,
    refuse_suspend,
    unable,
)
from pytest_flymachines.emulator.wiretime import now_ms

if TYPE_CHECKING:
    from pytest_flymachines.emulator.flyd import Flyd

__all__ = ["Life"]

ALIVE = ("started", "starting", "restarting", "suspended", "suspending", "failed")


class Life:
    """One machine from create to destroy.

    Attributes:
        cause: The request that the work under way comes from; None if it comes from none.
    """

    def __init__(self, machine: Machine, flyd: Flyd) -> None:
        self.machine = machine
        self.exec_turn = asyncio.Lock()
        self._journal = Journal(machine, flyd.changed)
        self.observers = self._journal.observers
        self._flyd = flyd
        self._turn = asyncio.Lock()
        self._superseded = asyncio.Event()
        self._hurry = asyncio.Event()
        self._run: GuestRun | None = None
        self.cause: Cause | None = None

    @property
    def running(self) -> RunningMachine | None:
        """What runs, if anything does."""
        return self._run.machine if self._run else None

    # Actions: each refuses or accepts by the present state.

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

    # Jobs: one at a time, in the order of the actions.

    def _begin(self, job: Callable[[asyncio.Event], Awaitable[None]]) -> None:
        mine = self._supersede()
        self.cause = cause()

        async def run() -> None:
            async with self._turn:
                try:
                    await job(mine)
                except Exception:
                    # A state on the way to another would be for ever; this one can be left.
                    self._journal.enter("failed")
                    raise

        self._flyd.spawn(run(), f"machine {self.machine.id}")

    def _supersede(self) -> asyncio.Event:
        self._superseded.set()
        self._superseded = asyncio.Event()
        return self._superseded

    async def _prepare(self, mine: asyncio.Event, *, skip: bool) -> None:
        if await self._held(mine, "created"):
            return
        if skip:
            self._journal.enter("stopped")
        elif self._struck("image-pull"):
            self._journal.enter("launch_failed")
            self._journal.enter("destroying", ("destroy", "destroying", "flyd"))
            await self._destroy(mine)
        else:
            await self._start_over(mine)

    async def _start_over(self, mine: asyncio.Event, *, keep_root: bool = False) -> None:
        self._journal.enter("starting")
        if not await self._held(mine, "starting"):
            await self._boot(mine, keep_root=keep_root)

    async def _start(self, mine: asyncio.Event, previous: str) -> None:
        if await self._held(mine, "starting"):
            return
        if previous == "suspended" and await self._resume():
            if not mine.is_set():
                self._journal.enter("started", ("start", "started", "flyd"))
                self._flyd.checks.start(self)
            return
        kept = previous == "suspended" or self._keeps_root(restart=False)
        await self._boot(mine, keep_root=kept)

    async def _resume(self) -> bool:
        """Thaw what was frozen; False when that is lost, and the machine has to boot cold.

        Source: https://fly.io/docs/reference/suspend-resume/.
        """
        run = self._run
        if run is None:
            return False
        try:
            await run.thaw()
        except (EngineError, OSError) as error:
            self._flyd.log(self.machine, f"could not resume: {error}")
            await self._end(run, signal.SIGKILL, 0)
            return False
        return True

    async def _boot(self, mine: asyncio.Event, *, keep_root: bool = False) -> None:
        machine = self.machine
        machine.launched = True
        slow = self._struck("slow-boot")
        if slow and await _pause(mine, slow.delay_s):
            return
        try:
            running = await self._flyd.boot(machine, keep_root=keep_root)
        except EngineError as error:
            if not mine.is_set():
                self._could_not_start(str(error))
            return
        self._run = GuestRun(running)
        self._flyd.spawn(self._watch(self._run), f"watch {machine.id}")
        machine.started_ms = now_ms()
        if mine.is_set():
            return
        self._journal.enter("started", ("start", "started", "flyd"))
        self._flyd.checks.start(self)
        self._flyd.arrange_death(self)

    def _could_not_start(self, why: str) -> None:
        self._flyd.log(self.machine, f"failed to start: {why}")
        self._journal.enter("failed", ("start", "failed", "flyd", {"error": why}))

    async def _watch(self, run: GuestRun) -> None:
        status = await run.watch()
        async with self._turn:
            # In any other state an action is under way, and its job takes note of the end.
            if self._run is run and self.machine.state in ("started", "suspended"):
                await self._exited(self._superseded, status)

    async def _exited(self, mine: asyncio.Event, status: ExitStatus) -> None:
        machine = self.machine
        self._flyd.checks.stop(self)
        self._run = None
        self.cause = None
        again = restart.restarts(machine, status.exit_code)
        exit_event = exit_happening(self.machine, status, requested=False, restarting=again)
        if not again:
            if machine.restarts_ms and machine.policy != "no" and status.exit_code:
                count = len(machine.restarts_ms)
                self._flyd.log(machine, f"machine has reached its max restart count of {count}")
            self._journal.enter("stopped", exit_event)
            await self._destroy_if_asked(mine)
            return
        self._journal.enter("restarting", exit_event)
        if await self._held(mine, "restarting"):
            return
        timings = self._flyd.timings
        pause = restart.backoff_s(machine, timings.restart_backoff_s, timings.restart_backoff_max_s)
        if await _pause(mine, pause):
            return
        await self._start_over(mine, keep_root=self._keeps_root(restart=True))

    async def _stop(self, mine: asyncio.Event, number: int, grace_s: float) -> None:
        if await self._held(mine, "stopping"):
            return
        exited = None
        if self._run is not None:
            status = await self._end(self._run, number, grace_s)
            exited = exit_happening(self.machine, status, requested=True)
        if not mine.is_set():
            self._journal.enter("stopped", exited)
            await self._destroy_if_asked(mine)
        elif exited is not None:
            self._journal.note(exited)

    async def _suspend(self, mine: asyncio.Event) -> None:
        if await self._held(mine, "suspending"):
            return
        run = self._run
        if run is None:
            return
        if run.ended.done():
            await self._exited(mine, run.ended.result())
            return
        self._flyd.checks.stop(self)
        try:
            await run.freeze()
        except (EngineError, OSError) as error:
            self._flyd.log(self.machine, f"could not suspend: {error}")
            if not mine.is_set():
                self._journal.enter("started")
                self._flyd.checks.start(self)
            return
        if not mine.is_set():
            self._journal.enter("suspended", ("suspend", "suspended", "flyd"))

    async def _restart(self, mine: asyncio.Event, number: int, grace_s: float) -> None:
        if await self._held(mine, "restarting"):
            return
        if self._run is not None:
            status = await self._end(self._run, number, grace_s)
            self._journal.note(
                exit_happening(self.machine, status, requested=True, restarting=True)
            )
        if mine.is_set():
            return
        await self._start_over(mine, keep_root=self._keeps_root(restart=True))

    async def _replace(
        self, mine: asyncio.Event, previous: str, ending: tuple[int, float], *, skip_launch: bool
    ) -> None:
        if await self._held(mine, "replacing"):
            return
        self.machine.restarts_ms = []
        if self._run is not None:
            status = await self._end(self._run, *ending)
            self._journal.note(exit_happening(self.machine, status, requested=True))
        if mine.is_set():
            return
        if previous == "created":
            self._journal.enter("created")
            await self._prepare(mine, skip=skip_launch)
        elif self._struck("image-pull"):
            self._could_not_start("unable to pull image, not found, canceling deploy")
        elif previous in ALIVE and not skip_launch:
            await self._start_over(mine)
        else:
            self._flyd.log(
                self.machine,
                "machine was in a non-started state prior to the update so leaving the new "
                "version stopped",
            )
            self._journal.enter("stopped")

    async def _destroy(self, mine: asyncio.Event) -> None:
        if await self._held(mine, "destroying"):
            return
        if self._run is not None:
            status = await self._end(self._run, signal.SIGKILL, 0)
            self._journal.note(exit_happening(self.machine, status, requested=True))
        await self._flyd.discard(self.machine)
        self._journal.enter("destroyed", ("destroy", "destroyed", "flyd"))
        self._flyd.buried(self.machine)

    async def _destroy_if_asked(self, mine: asyncio.Event) -> None:
        if self.machine.config.auto_destroy and self.machine.policy == "no":
            self._journal.enter("destroying", ("destroy", "destroying", "flyd"))
            await self._destroy(mine)

    # Parts of jobs.

    async def _end(self, run: GuestRun, number: int, grace_s: float) -> ExitStatus:
        self._flyd.checks.stop(self)
        status = await run.end(number, grace_s, self._hurry)
        self._run = None
        return status

    async def _held(self, mine: asyncio.Event, state: str) -> bool:
        """Whether a fault keeps the machine in this state until something supersedes it."""
        if mine.is_set():
            return True
        stuck = self._flyd.faults.take("stuck", self.machine, self.cause, state=state)
        if stuck is None:
            return False
        await _pause(mine, stuck.delay_s or None)
        return mine.is_set()

    def _struck(self, kind: Literal["image-pull", "slow-boot"]) -> Fault | None:
        return self._flyd.faults.take(kind, self.machine, self.cause)

    def _reserve(self) -> None:
        if self._flyd.faults.take("capacity", self.machine, cause()):
            raise conflict(
                "could not reserve resource for machine: "
                "insufficient memory available to fulfill request"
            )

    def _keeps_root(self, *, restart: bool) -> bool:
        rootfs = self.machine.config.rootfs
        persist = rootfs.persist if rootfs else ""
        return persist == "always" or (restart and persist == "restart")

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


async def _pause(mine: asyncio.Event, seconds: float | None) -> bool:
    """Sleep, for ever with None, but no longer than until superseded.

    Returns:
        Whether it was superseded.
    """
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(mine.wait(), seconds)
    return mine.is_set()
