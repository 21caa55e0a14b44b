"""Whether a container is healthy: its checks, by HTTP, TCP or a command in it.

What a config leaves out is 10 s from check to check, 5 s for each, once to be healthy and three
times in a row not to be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from pytest_flymachines.emulator.checks import attempt
from pytest_flymachines.emulator.config import Check, Healthcheck
from pytest_flymachines.emulator.engines.base import EngineError, RunningMachine
from pytest_flymachines.emulator.wiretime import Duration

__all__ = ["watch_health"]

INTERVAL_S = 10
TIMEOUT_S = 5
SUCCESSES = 1
FAILURES = 3


async def watch_health(
    running: RunningMachine,
    checks: list[Healthcheck],
    healthy: asyncio.Event,
    frozen: Callable[[], bool],
    unhealthy: Callable[[Healthcheck], Awaitable[None]],
) -> None:
    """Check for ever.

    Args:
        running: The container.
        checks: All must pass for it to be healthy; without any it is.
        healthy: Set while it is.
        frozen: Whether it is suspended, and cannot answer.
        unhealthy: Told of each check by which it no longer is.
    """
    missing = set(range(len(checks)))

    def passed(index: int) -> None:
        missing.discard(index)
        if not missing:
            healthy.set()

    async def failed(index: int) -> None:
        missing.add(index)
        healthy.clear()
        await unhealthy(checks[index])

    async def repeat(index: int, check: Healthcheck) -> None:
        await asyncio.sleep(check.grace_period)
        successes = failures = 0
        while True:
            if not frozen():
                if await _passes(running, check):
                    successes, failures = successes + 1, 0
                    if successes == (check.success_threshold or SUCCESSES):
                        passed(index)
                else:
                    successes, failures = 0, failures + 1
                    if failures == (check.failure_threshold or FAILURES):
                        await failed(index)
            await asyncio.sleep(check.interval or INTERVAL_S)

    if not checks:
        healthy.set()
        return
    async with asyncio.TaskGroup() as group:
        for index, check in enumerate(checks):
            group.create_task(repeat(index, check))


async def _passes(running: RunningMachine, check: Healthcheck) -> bool:
    timeout_s = check.timeout or TIMEOUT_S
    if check.exec:
        try:
            outcome = await running.exec(check.exec.command, timeout_s=timeout_s)
        except (EngineError, OSError):
            return False
        return outcome.exit_code == 0
    if check.http:
        asked = Check(
            type="http",
            method=check.http.method or None,
            path=check.http.path or None,
            protocol=check.http.scheme or None,
            headers=check.http.headers,
            tls_skip_verify=check.http.tls_skip_verify,
            tls_server_name=check.http.tls_server_name or None,
        )
        port = check.http.port
    else:
        asked, port = Check(type="tcp"), check.tcp.port if check.tcp else 0
    asked.timeout = Duration(round(timeout_s * 1e9))
    return (await attempt(running, asked, port))[0]
