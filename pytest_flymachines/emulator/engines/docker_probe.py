"""The container by which the docker engine finds out what the daemon can do."""

from __future__ import annotations

import asyncio

from pytest_flymachines.emulator.engines import trial
from pytest_flymachines.emulator.engines.base import Engine, ExecOutcome, RunningMachine

__all__ = ["WAIT", "try_one"]

WAIT = ["/bin/sh", "-c", "read never < /dev/ptmx"]
"""A main program that stays, of an image that has nothing but a shell."""


async def try_one(engine: Engine, image: str, disk: bool) -> tuple[ExecOutcome, bool]:
    """How `exit 7` ended in a container, and whether it can be reached.

    Args:
        engine: Starts it.
        image: Has a shell.
        disk: Give it a disk.

    Raises:
        EngineError, DiskError, OSError: It could not be started, or the disk not be found in it.
    """
    private_ip = "fdaa:0:ffff:a7b:1::2"
    made = trial.machine(engine, disk=disk, image=image, argv=WAIT, private_ip=private_ip)
    async with made as machine:
        outcome = await machine.exec(["/bin/sh", "-c", "exit 7"], timeout_s=trial.TIMEOUT_S)
        reachable = await _refuses(machine)
    return outcome, reachable


async def _refuses(machine: RunningMachine) -> bool:
    """Whether connections get as far as the container, in which nothing listens."""
    try:
        # A new bridge uses its IPv6 address only once it is sure that nobody else has it: 2 s.
        async with asyncio.timeout(15):
            (await machine.connect(9)).close()
    except ConnectionRefusedError:
        return True
    except (TimeoutError, OSError):
        return False
    return True
