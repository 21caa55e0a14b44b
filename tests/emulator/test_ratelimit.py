from __future__ import annotations

from typing import Any

import pytest

from pytest_flymachines.emulator.answers import Problem
from pytest_flymachines.emulator.ratelimit import RateLimits
from tests.emulator.conftest import App, Fly, Serve
from tests.emulator.fidelity import shows
from tests.emulator.surprises import surprise

MACHINE = "/v1/apps/a/machines/0123456789abcd"


class Clock:
    """Time that only moves when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def passes(limits: RateLimits, method: str, path: str) -> int:
    """How many requests in a row are let through, up to 200."""
    for count in range(200):
        try:
            limits.check(method, path)
        except Problem:
            return count
    return 200


@shows("rate limits", "1/s with bursts of 3 per action and machine; create per app", "docs")
@shows(
    "rate limits", "GET of a machine: 5/s with bursts of 10; app deletions: 100 a minute", "docs"
)
@pytest.mark.parametrize(
    ("method", "path", "burst", "per_second"),
    [
        ("POST", f"{MACHINE}/start", 3, 1),
        ("POST", f"{MACHINE}/exec", 3, 1),
        ("GET", f"{MACHINE}/wait", 3, 1),
        ("POST", MACHINE, 3, 1),
        ("DELETE", MACHINE, 3, 1),
        ("POST", "/v1/apps/a/machines", 3, 1),
        ("GET", MACHINE, 10, 5),
        ("GET", "/v1/apps/a/machines", 200, 0),
        ("DELETE", "/v1/apps/a", 100, 1),
    ],
)
def test_limits(method: str, path: str, burst: int, per_second: int) -> None:
    clock = Clock()
    limits = RateLimits(enabled=True, clock=clock)
    assert passes(limits, method, path) == burst
    clock.now += 1.0
    if per_second:
        assert passes(limits, method, path) == per_second


def test_actions_machines_and_apps_are_counted_apart() -> None:
    limits = RateLimits(enabled=True, clock=Clock())
    paths = [f"{MACHINE}/start", f"{MACHINE}/stop", f"{MACHINE[:-1]}e/start"]
    paths += ["/v1/apps/a/machines", "/v1/apps/b/machines"]
    assert [passes(limits, "POST", path) for path in paths] == [3] * 5


def test_limits_are_off_on_request() -> None:
    assert passes(RateLimits(enabled=False), "POST", f"{MACHINE}/start") == 200


@surprise(31, "tests/api/test_emulator.py: test_a_paced_client_meets_no_rate_limit")
@shows("rate limits", "429 `rate limit exceeded`", "guess")
def test_server_answers_429(serve: Serve) -> None:
    with serve("--app", "fast", "--rate-limits", "on") as emulator:
        fly = Fly(emulator)
        machine: Any = App(fly, "fast").create(skip_launch=True, wait=None)
        answers = [fly("POST", f"{machine.path}/cordon") for _ in range(20)]
        limited = [answer for answer in answers if answer.status_code == 429]
        assert limited
        assert limited[0].json() == {"error": "rate limit exceeded"}
        assert "retry-after" not in limited[0].headers
        fly.close()
