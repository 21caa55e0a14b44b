"""What goes on between the states of a machine: one job at a time, in the order of the actions."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Literal

from pytest_flymachines.emulator import restart
from pytest_flymachines.emulator.engines.base import EngineError, ExitStatus, RunningMachine
from pytest_flymachines.emulator.faults import Cause, Fault, cause
from pytest_flymachines.emulator.guestrun import GuestRun
from pytest_flymachines.emulator.journal import Journal, exit_happening
from pytest_flymachines.emulator.model import Machine
from pytest_flymachines.emulator.wiretime import now_ms

if TYPE_CHECKING:
    from pytest_flymachines.emulator.flyd import Flyd

__all__ = ["Work"]

ALIVE = ("started", "starting", "restarting", "suspended", "suspending", "failed")


class Work:
    """One machine, and what goes on in it.

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

    async def connect(self, port: int) -> socket.socket:
        """A connection of a visitor into what runs.

        Raises:
            OSError: Nothing listens there, or the machine is not started.
        """
        if self._run is None or self.machine.state != "started":
            raise ConnectionRefusedError(f"machine {self.machine.id} is not running")
        return await self._run.connect(port)

    async def datagrams(self, port: int) -> socket.socket:
        """A UDP socket of a visitor into what runs.

        Raises:
            OSError: The machine is not started.
        """
        if self._run is None or self.machine.state != "started":
            raise ConnectionRefusedError(f"machine {self.machine.id} is not running")
        return await self._run.machine.datagrams(port)

    def lose_host(self) -> None:
        """The host does not answer any more: what runs ends, and nobody tells of it."""
        self.machine.host_status = "unreachable"
        self._flyd.changed(self.machine)
        self._begin(self._lose_host)

    def regain_host(self) -> None:
        """The host is back; a machine that was to run is started anew."""
        self.machine.host_status = "ok"
        self._flyd.changed(self.machine)
        self._begin(self._regain_host)

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
                self._flyd.attend(self)
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
        self._flyd.attend(self)
        self._flyd.arrange_death(self)
        self._flyd.hosts.arrange(self)

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
        self._flyd.leave(self)
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
        self._flyd.leave(self)
        try:
            await run.freeze()
        except (EngineError, OSError) as error:
            self._flyd.log(self.machine, f"could not suspend: {error}")
            if not mine.is_set():
                self._journal.enter("started")
                self._flyd.attend(self)
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

    async def _lose_host(self, _: asyncio.Event) -> None:
        if self._run is not None:
            await self._end(self._run, signal.SIGKILL, 0)

    async def _regain_host(self, mine: asyncio.Event) -> None:
        match self.machine.state:
            case "started":
                lost = ExitStatus(exit_code=137, signal=signal.SIGKILL)
                self._journal.note(
                    exit_happening(self.machine, lost, requested=False, restarting=True)
                )
                await self._start_over(mine, keep_root=self._keeps_root(restart=True))
            case "created" | "starting" | "restarting" | "replacing":
                await self._start_over(mine)
            case "stopping" | "suspending":
                self._journal.enter("stopped")
            case "destroying" | "launch_failed":
                await self._destroy(mine)

    async def _destroy_if_asked(self, mine: asyncio.Event) -> None:
        if self.machine.config.auto_destroy and self.machine.policy == "no":
            self._journal.enter("destroying", ("destroy", "destroying", "flyd"))
            await self._destroy(mine)

    # Parts of jobs.

    async def _end(self, run: GuestRun, number: int, grace_s: float) -> ExitStatus:
        self._flyd.leave(self)
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

    def _keeps_root(self, *, restart: bool) -> bool:
        rootfs = self.machine.config.rootfs
        persist = rootfs.persist if rootfs else ""
        return persist == "always" or (restart and persist == "restart")


async def _pause(mine: asyncio.Event, seconds: float | None) -> bool:
    """Sleep, for ever with None, but no longer than until superseded.

    Returns:
        Whether it was superseded.
    """
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(mine.wait(), seconds)
    return mine.is_set()
