"""One container of a machine: started, checked, started again by its policy, ended."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pytest_flymachines.emulator import config, restart
from pytest_flymachines.emulator.containers.health import watch_health
from pytest_flymachines.emulator.engines.base import EngineError, ExitStatus, RunningMachine

__all__ = ["Container", "Surroundings"]

STOP_TIMEOUT_S = 5.0
_NOT_STARTED = ExitStatus(exit_code=126)


@dataclass(frozen=True)
class Surroundings:
    """What a container needs of its machine.

    Attributes:
        start: Has the engine start it.
        tell: Called with every state that it enters.
        log: Called with what is worth knowing.
        backoff_s: Second pause before a policy restart; it doubles from there.
        backoff_max_s: The longest such pause.
    """

    start: Callable[[], Awaitable[RunningMachine]]
    tell: Callable[[str], None]
    log: Callable[[str], None]
    backoff_s: float
    backoff_max_s: float


class Container:
    """One container.

    Attributes:
        running: The engine's handle, while it runs.
        started: Set once it has been started.
        healthy: Set while it runs and its checks pass.
        rest: How it ended, once it will not be started any more.
        frozen: The machine is suspended.
    """

    def __init__(self, given: config.Container, around: Surroundings) -> None:
        self.given = given
        self.name = given.name
        self.running: RunningMachine | None = None
        self.started = asyncio.Event()
        self.healthy = asyncio.Event()
        self.rest: asyncio.Future[ExitStatus] = asyncio.get_running_loop().create_future()
        self.frozen = False
        self.restarts_ms: list[int] = []
        self._around = around
        self._told_to_end = asyncio.Event()
        self._endings: set[asyncio.Task[None]] = set()

    @property
    def policy(self) -> str:
        """The restart policy; none given means `on-failure`, as for machines."""
        return (self.given.restart.policy if self.given.restart else "") or "on-failure"

    @property
    def max_retries(self) -> int:
        """Of `on-failure`; 0 means the default."""
        return self.given.restart.max_retries if self.given.restart else 0

    async def live(self, dependencies: Awaitable[bool]) -> None:
        """From the wait for its dependencies to its rest.

        Args:
            dependencies: Gives whether they came to be as it needs them.
        """
        self._around.tell("created")
        status = ExitStatus(exit_code=0)
        if await self._unless_told_to_end(dependencies):
            status = await self._run()
            while not self._told_to_end.is_set() and restart.restarts(self, status.exit_code):
                pause = restart.backoff_s(self, self._around.backoff_s, self._around.backoff_max_s)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._told_to_end.wait(), pause)
                    break
                status = await self._run()
        self._around.tell("stopped")
        self.rest.set_result(status)

    def stop(self, number: int) -> None:
        """Have it end for good: the signal of its own config or this one, then SIGKILL."""
        self._told_to_end.set()
        if self.running is not None:
            self._end(self.running, number)

    async def kill(self) -> None:
        """End it for good, at once."""
        self._told_to_end.set()
        if self.running is not None:
            await self.running.kill()

    async def _run(self) -> ExitStatus:
        try:
            running = await self._around.start()
        except EngineError as error:
            self._around.log(f"container {self.name} failed to start: {error}")
            return _NOT_STARTED
        self.running = running
        if self._told_to_end.is_set():
            await running.kill()
        self.started.set()
        self._around.tell("started")
        health = asyncio.ensure_future(
            watch_health(
                running,
                self.given.healthchecks or [],
                self.healthy,
                lambda: self.frozen,
                self._unhealthy,
            )
        )
        try:
            return await running.wait()
        finally:
            self.running = None
            health.cancel()
            await asyncio.gather(health, return_exceptions=True)
            self.healthy.clear()

    async def _unhealthy(self, check: config.Healthcheck) -> None:
        self._around.log(f"container {self.name} is unhealthy: check {check.name or '(no name)'}")
        if check.unhealthy == "stop" and self.running is not None:
            self._end(self.running, signal.SIGINT)

    def _end(self, running: RunningMachine, number: int) -> None:
        """Signal, and SIGKILL when its time is over; nobody waits for it."""
        stop = self.given.stop
        if stop and stop.signal:
            number = signal.Signals[stop.signal]
        grace_s = stop.timeout.seconds if stop and stop.timeout else STOP_TIMEOUT_S

        async def work() -> None:
            with contextlib.suppress(ProcessLookupError):
                running.signal(number)
            try:
                await asyncio.wait_for(running.wait(), grace_s)
            except TimeoutError:
                await running.kill()

        task = asyncio.ensure_future(work())
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)

    async def _unless_told_to_end(self, dependencies: Awaitable[bool]) -> bool:
        waiting = asyncio.ensure_future(dependencies)
        ending = asyncio.ensure_future(self._told_to_end.wait())
        await asyncio.wait([waiting, ending], return_when=asyncio.FIRST_COMPLETED)
        ending.cancel()
        if not waiting.done():
            waiting.cancel()
            return False
        return waiting.result() and not self._told_to_end.is_set()
