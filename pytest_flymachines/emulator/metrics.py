"""`config.metrics`: what machines expose is scraped while they are started.

As on Fly every 15 s, and every second until a program answers for the first time; the newest
sample of each series is kept for five minutes. Labels of Fly's own replace those of a program.
Source: https://fly.io/docs/monitoring/metrics/.
"""

from __future__ import annotations

import asyncio
import platform
import ssl
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_flymachines.emulator import exposition, guesthttp
from pytest_flymachines.emulator.engines.base import RunningMachine
from pytest_flymachines.emulator.wiretime import now_ms

if TYPE_CHECKING:
    from pytest_flymachines.emulator.flyd import Flyd
    from pytest_flymachines.emulator.work import Work

__all__ = ["HOST", "Metrics", "Sample", "Target"]

#: Four hexadecimal digits, for this computer.
HOST = f"{zlib.crc32(platform.node().encode()) & 0xFFFF:04x}"
#: How long a sample counts as the present one, as in Prometheus.
FRESH_MS = 5 * 60 * 1000
TIMEOUT_S = 10.0
RETRY_S = 1.0
MAX_BODY = 4 * 1024 * 1024
MAX_SAMPLES = 20_000
ACCEPT = {"Accept": "text/plain;version=0.0.4;q=1,*/*;q=0.1", "User-Agent": "vmagent"}


@dataclass(frozen=True, slots=True)
class Sample:
    """The newest value of a series.

    Attributes:
        name: Of the metric.
        labels: With Fly's own.
        value: As Prometheus writes it.
        at_ms: When it was scraped, or what the program says.
    """

    name: str
    labels: dict[str, str]
    value: str
    at_ms: int


@dataclass(kw_only=True)
class Target:
    """What is scraped of one machine, and what came of it.

    Attributes:
        app: Its name.
        org: The slug of its organization.
        machine: Its id.
        labels: Fly's own.
        url: For people: the scheme, the port and the path.
        active: Whether it is scraped now: the machine is started.
        tried_ms: When it was last scraped; 0 is never.
        took_s: How long that took.
        error: What went wrong then; empty for nothing.
        samples: Of the last scrape that went well.
    """

    app: str
    org: str
    machine: str
    labels: dict[str, str]
    url: str
    active: bool = True
    tried_ms: int = 0
    took_s: float = 0.0
    error: str = ""
    samples: tuple[Sample, ...] = ()


class Metrics:
    """All targets of one emulator, by machine."""

    def __init__(self, flyd: Flyd) -> None:
        self._flyd = flyd
        self._targets: dict[str, Target] = {}
        self._loops: dict[str, asyncio.Task[None]] = {}

    def start(self, life: Work) -> None:
        """Begin to scrape a machine that has started, if its config asks for that."""
        self.stop(life)
        machine, running = life.machine, life.running
        wanted, app = machine.config.metrics, self._flyd.store.apps.get(machine.app)
        if running is None or wanted is None or not wanted.port or app is None:
            return
        own = {"app": app.name, "region": machine.region, "host": HOST, "instance": machine.id}
        scheme = "https" if wanted.https else "http"
        target = Target(
            app=app.name,
            org=app.org,
            machine=machine.id,
            labels=own,
            url=f"{scheme}://{machine.id}:{wanted.port}{wanted.path or '/metrics'}",
        )
        self._targets[machine.id] = target
        work = self._loop(target, running, life)
        self._loops[machine.id] = self._flyd.spawn(work, f"metrics of {machine.id}")

    def stop(self, life: Work) -> None:
        """Stop scraping; what was scraped counts for a while."""
        if loop := self._loops.pop(life.machine.id, None):
            loop.cancel()
            self._targets[life.machine.id].active = False

    def targets(self, org: str, app: str | None = None) -> list[Target]:
        """The targets of an organization, or of one app in it, that have anything to say."""
        oldest = now_ms() - FRESH_MS
        self._targets = {
            key: target
            for key, target in self._targets.items()
            if target.active or target.tried_ms >= oldest
        }
        return [t for t in self._targets.values() if t.org == org and app in (None, t.app)]

    def samples(self, org: str, app: str | None = None) -> Iterator[Sample]:
        """The series of an organization, or of one app in it."""
        oldest = now_ms() - FRESH_MS
        for target in self.targets(org, app):
            yield from (sample for sample in target.samples if sample.at_ms >= oldest)

    async def _loop(self, target: Target, running: RunningMachine, life: Work) -> None:
        every_s = self._flyd.timings.scrape_every_s
        while True:
            await self._scrape(target, running, life)
            await asyncio.sleep(every_s if target.samples else min(RETRY_S, every_s))

    async def _scrape(self, target: Target, running: RunningMachine, life: Work) -> None:
        wanted = life.machine.config.metrics
        assert wanted is not None
        began, clock = now_ms(), asyncio.get_running_loop().time
        started = clock()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                status, body = await guesthttp.get(
                    await running.connect(wanted.port),
                    host=f"{target.machine}:{wanted.port}",
                    path=wanted.path or "/metrics",
                    tls=_any_certificate() if wanted.https else None,
                    headers=ACCEPT,
                    limit=MAX_BODY,
                )
            if status != 200:
                raise guesthttp.HttpError(f"HTTP status {status}")
            target.samples = await asyncio.to_thread(_read, body, target.labels, began)
            target.error = ""
        except TimeoutError:
            target.error = f"no answer in {TIMEOUT_S:g} s"
        except (OSError, ValueError, guesthttp.HttpError) as error:
            target.error = str(error)
        target.tried_ms, target.took_s = began, clock() - started


def _any_certificate() -> ssl.SSLContext:
    tls = ssl.create_default_context()
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    return tls


def _read(body: bytes, own: dict[str, str], at_ms: int) -> tuple[Sample, ...]:
    """What a page of Prometheus's text format says.

    Raises:
        ValueError: It is none, or says too much.
    """
    found = []
    for name, labels, value, stamp in exposition.read(body.decode()):
        found.append(Sample(name, labels | own, value, at_ms if stamp is None else stamp))
        if len(found) > MAX_SAMPLES:
            raise ValueError(f"more than {MAX_SAMPLES} samples")
    return tuple(found)
