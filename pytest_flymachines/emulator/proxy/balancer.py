"""Getting through to a machine: choosing, waking, connecting, trying again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from pytest_flymachines.emulator.proxy.directory import Directory, MachineRecord, StartRefused
from pytest_flymachines.emulator.proxy.loads import Loads, Slot
from pytest_flymachines.emulator.proxy.routing import Refusal, Target, Wish, choose

__all__ = ["Balancer", "Reached", "Unreachable"]

FIRST_PAUSE_S = 0.02
LONGEST_PAUSE_S = 0.25

T = TypeVar("T")


class Unreachable(Exception):
    """No machine could be reached.

    Attributes:
        status: HTTP status of the answer.
        reason: `fly-replay-failed`'s word: timeout, retries_exhausted or no_candidate.
        machine_id: The machine that was tried last, or an empty string.
    """

    def __init__(self, text: str, status: int, reason: str, machine_id: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.reason = reason
        self.machine_id = machine_id


@dataclass(frozen=True)
class Reached(Generic[T]):
    """A machine that was connected to; `slot` is to be closed when the work has ended."""

    target: Target
    connection: T
    slot: Slot


class Balancer:
    """Sends work to machines, within their limits."""

    def __init__(self, directory: Directory, loads: Loads, *, edge: str, patience_s: float) -> None:
        """Make a balancer.

        Args:
            directory: The machines.
            loads: What each has to do.
            edge: The region where visitors are.
            patience_s: How long to try to get through.
        """
        self.directory = directory
        self.loads = loads
        self.edge = edge
        self._patience_s = patience_s
        self._starting: dict[str, asyncio.Task[None]] = {}

    async def reach(
        self,
        wish: Wish,
        connect: Callable[[Target], Awaitable[T]],
        *,
        patience_s: float | None = None,
    ) -> Reached[T]:
        """Connect to the machine that a wish leads to, waking it if need be.

        Args:
            wish: Where to.
            connect: Connects to a machine's service; an `OSError` makes us try again.
            patience_s: How long to try; None takes the balancer's own.

        Raises:
            Unreachable: It did not work in that time, or cannot work.
        """
        loop = asyncio.get_running_loop()
        patience_s = self._patience_s if patience_s is None else patience_s
        deadline = loop.time() + patience_s
        pause_s = FIRST_PAUSE_S
        tried: dict[str, Refusal] = {}
        woken: set[str] = set()
        while True:
            choice = choose(
                self._machines(wish),
                wish,
                self.loads,
                edge=wish.edge or self.edge,
                avoid=frozenset(tried),
                waking=self._starting,
            )
            if isinstance(choice, Target) and choice.machine.id not in tried:
                refusal: Refusal | None
                if choice.must_start:
                    refusal = await self._wake(choice, woken)
                    deadline = loop.time() + patience_s  # its program has yet to come up
                else:
                    outcome = await self._connect(choice, connect)
                    if isinstance(outcome, Reached):
                        return outcome
                    refusal = outcome
                if refusal:
                    tried[choice.machine.id] = refusal
                continue
            if isinstance(choice, Refusal):
                refusal, machine_id = choice, wish.instance
            else:
                refusal, machine_id = tried[choice.machine.id], choice.machine.id
            left_s = deadline - loop.time()
            if not refusal.passing or left_s <= 0:
                reason = "retries_exhausted" if refusal.passing else "no_candidate"
                self.directory.log(wish.app, machine_id, refusal.text)
                raise Unreachable(refusal.text, refusal.status, reason, machine_id)
            await self.loads.change(min(pause_s, left_s))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            tried.clear()

    async def close(self) -> None:
        """End the starts that are under way."""
        starting = tuple(self._starting.values())
        for task in starting:
            task.cancel()
        await asyncio.gather(*starting, return_exceptions=True)

    def _machines(self, wish: Wish) -> Iterable[MachineRecord]:
        if not wish.instance:
            return self.directory.machines(wish.app)
        machine = self.directory.machine(wish.instance)
        return (machine,) if machine is not None and machine.app == wish.app else ()

    async def _connect(
        self, target: Target, connect: Callable[[Target], Awaitable[T]]
    ) -> Reached[T] | Refusal:
        machine_id, port = target.machine.id, target.service.internal_port
        slot = self.loads.enter(machine_id, port)
        try:
            return Reached(target, await connect(target), slot)
        except OSError as error:
            slot.close()
            why = error.strerror or str(error)
            text = f"[PC01] machine {machine_id} refused the connection to port {port}: {why}"
            hint = f"is its program listening on 0.0.0.0:{port}, not only on 127.0.0.1?"
            return Refusal(f"{text}; {hint}", passing=True, status=502)
        except BaseException:
            slot.close()
            raise

    async def _wake(self, target: Target, woken: set[str]) -> Refusal | None:
        """Start a machine, once for all that ask for it, and once only for each that asks."""
        machine_id = target.machine.id
        if machine_id in woken:
            return Refusal(f"[PM06] machine {machine_id} stopped again right after its start")
        woken.add(machine_id)
        task = self._starting.get(machine_id)
        if task is None:
            loop = asyncio.get_running_loop()
            task = loop.create_task(self.directory.start(machine_id), name=f"wake {machine_id}")
            self._starting[machine_id] = task
            task.add_done_callback(lambda _: self._started(machine_id))
        await asyncio.wait([task])
        if task.cancelled() or (error := task.exception()) is None:
            return None
        if not isinstance(error, StartRefused):
            raise error
        return Refusal(f"[PM01] machine {machine_id} could not be started: {error}")

    def _started(self, machine_id: str) -> None:
        del self._starting[machine_id]
        self.loads.changed()
