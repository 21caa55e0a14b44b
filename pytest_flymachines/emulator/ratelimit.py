"""Rate limits: one action a second with bursts of three, reads of a machine five and ten.

Counted per action and machine, for create per app; app deletions 100 a minute.
Source: https://fly.io/docs/machines/api/working-with-machines-api/.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from pytest_flymachines.emulator.answers import Problem

__all__ = ["RateLimits"]

MACHINE = re.compile(r"^/v1/apps/[^/]+/machines/(?P<id>[^/]+)(?:/(?P<action>[^/]+))?")
CREATE = re.compile(r"^/v1/apps/(?P<app>[^/]+)/machines/?$")
APP = re.compile(r"^/v1/apps/[^/]+/?$")

ACTION = (1.0, 3.0)
READ = (5.0, 10.0)
APP_DELETE = (100 / 60, 100.0)
MAX_BUCKETS = 10_000


@dataclass
class _Bucket:
    tokens: float
    at: float


class RateLimits:
    """Token buckets."""

    def __init__(self, *, enabled: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self.enabled = enabled
        self._clock = clock
        self._buckets: dict[tuple[str, str], _Bucket] = {}

    def check(self, method: str, path: str) -> None:
        """Count a request.

        Raises:
            Problem: 429.
        """
        if not self.enabled:
            return
        found = _rule(method, path)
        if found is None:
            return
        key, (rate, burst) = found
        now = self._clock()
        if len(self._buckets) > MAX_BUCKETS:
            self._buckets.clear()
        bucket = self._buckets.setdefault(key, _Bucket(burst, now))
        bucket.tokens = min(burst, bucket.tokens + (now - bucket.at) * rate)
        bucket.at = now
        if bucket.tokens < 1.0:
            raise Problem(429, "rate limit exceeded")
        bucket.tokens -= 1.0


def _rule(method: str, path: str) -> tuple[tuple[str, str], tuple[float, float]] | None:
    if machine := MACHINE.match(path):
        action = machine["action"] or {"GET": "get", "POST": "update"}.get(method, "destroy")
        read = method == "GET" and action != "wait"
        return (f"{method} {action}", machine["id"]), READ if read else ACTION
    if method == "POST" and (create := CREATE.match(path)):
        return ("create", create["app"]), ACTION
    if method == "DELETE" and APP.match(path):
        return ("delete", "apps"), APP_DELETE
    return None
