"""Health checks: run while a machine is started, shown in `checks`, never a cause of restart.

Source: https://fly.io/docs/reference/health-checks/. Where a config leaves them out, interval
and timeout are 15 s and 2 s.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pytest_flymachines.emulator.config import Check, MachineConfig
from pytest_flymachines.emulator.engines.base import RunningMachine
from pytest_flymachines.emulator.model import CheckStatus
from pytest_flymachines.emulator.wiretime import Duration, now_ms, rfc3339

if TYPE_CHECKING:
    from pytest_flymachines.emulator.flyd import Flyd
    from pytest_flymachines.emulator.work import Work

__all__ = ["Checks", "attempt", "checks_of", "service_check_name"]

INTERVAL_S = 15.0
TIMEOUT_S = 2.0
MAX_OUTPUT = 1024


class Checks:
    """The check loops of all machines."""

    def __init__(self, flyd: Flyd) -> None:
        self._flyd = flyd
        self._loops: dict[str, list[asyncio.Task[None]]] = {}

    def start(self, life: Work) -> None:
        """Begin to check a machine that has started."""
        self.stop(life)
        machine, running = life.machine, life.running
        machine.checks = {}
        if running is None:
            return
        loops = []
        for name, check, port in checks_of(machine.config):
            self._show(life, name, "warning", "waiting for status update")
            work = self._loop(life, running, name, check, port)
            loops.append(self._flyd.spawn(work, f"check {name} of {machine.id}"))
        if loops:
            self._loops[machine.id] = loops

    def stop(self, life: Work) -> None:
        """Stop checking; the checks of a machine that does not run say so."""
        for loop in self._loops.pop(life.machine.id, ()):
            loop.cancel()
        for name in life.machine.checks:
            self._show(life, name, "warning", "the machine hasn't started")

    async def _loop(
        self, life: Work, running: RunningMachine, name: str, check: Check, port: int
    ) -> None:
        began = asyncio.get_running_loop().time()
        grace_s = _seconds(check.grace_period, 0.0)
        while True:
            passed, output = await attempt(running, check, port)
            age_s = asyncio.get_running_loop().time() - began
            if passed or age_s >= grace_s:
                self._show(life, name, "passing" if passed else "critical", output)
            await asyncio.sleep(max(_seconds(check.interval, INTERVAL_S), 0.05))

    def _show(self, life: Work, name: str, status: str, output: str) -> None:
        shown = CheckStatus(name, status, output[:MAX_OUTPUT], rfc3339(now_ms()))
        life.machine.checks[name] = shown
        self._flyd.changed(life.machine)


def checks_of(config: MachineConfig) -> Iterator[tuple[str, Check, int]]:
    """Name, check and port of every check, those of services named as Fly names them."""
    for name, check in (config.checks or {}).items():
        yield name, check, check.port or 0
    for service in config.services or ():
        for index, check in enumerate(service.checks or ()):
            port = check.port or service.internal_port
            yield service_check_name(index, check, service.internal_port), check, port


def service_check_name(index: int, check: Check, internal_port: int) -> str:
    """The name of a check of a service, such as `servicecheck-00-tcp-8080`."""
    return f"servicecheck-{index:02d}-{check.type or 'tcp'}-{check.port or internal_port}"


async def attempt(running: RunningMachine, check: Check, port: int) -> tuple[bool, str]:
    """Run a check once: whether it passed, and what it shows."""
    try:
        async with asyncio.timeout(_seconds(check.timeout, TIMEOUT_S)):
            if check.type == "http":
                return await _http(running, check, port)
            (await running.connect(port)).close()
            return True, "Success"
    except TimeoutError:
        return False, "timeout"
    except (OSError, EOFError) as error:
        return False, f"connect: {error.strerror if isinstance(error, OSError) else error}"


async def _http(running: RunningMachine, check: Check, port: int) -> tuple[bool, str]:
    connection = await running.connect(port)
    tls = None
    if check.protocol == "https":
        tls = ssl.create_default_context()
        if check.tls_skip_verify:
            tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection(
        sock=connection,
        ssl=tls,
        server_hostname=(check.tls_server_name or "localhost") if tls else None,
    )
    try:
        headers = {"Host": f"localhost:{port}", "User-Agent": "Consul Health Check"}
        headers |= {header.name: ", ".join(header.values) for header in check.headers or ()}
        lines = [f"{check.method or 'GET'} {check.path or '/'} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "Connection: close", "", ""]).encode())
        head = await reader.readline()
        status = int(head.split()[1])
    except (IndexError, ValueError):
        return False, "no HTTP answer"
    finally:
        writer.close()
    return 200 <= status < 300, f"HTTP status {status}"


def _seconds(given: Duration | None, default: float) -> float:
    return given.seconds if given is not None and given.ns > 0 else default
