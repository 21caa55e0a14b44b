"""All workers together keep within Fly's published rate limits, by the emulator's own log."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from .cloud import Cloud, Project, Request, cloud
from .forks import Forks

TESTS = """
import pytest

@pytest.fixture(scope="session")
def own(fly_sandbox_factory):
    return fly_sandbox_factory(fresh=True)

def test_it(fly_sandbox, own):
    fly_sandbox.exec("true")
    own.exec("true")
"""
# Requests that left in time may have been held up on their way by a computer that is busy.
HELD_UP_S = 0.5


@pytest.fixture
def fly() -> Iterator[Cloud]:
    with cloud("--rate-limits", "on") as found:
        yield found


def limit_of(request: Request) -> tuple[str, float, int]:
    """What is counted together, how many a second, and how many at once.

    Source: https://fly.io/docs/machines/api/working-with-machines-api/#rate-limits.
    """
    if request.kind == "GET machines/ID":
        return request.path, 5, 10
    return f"{request.method} {request.path.partition('?')[0]}", 1, 3


def exceeded(requests: Iterable[Request]) -> list[str]:
    """Of each kind, stretches of time with more requests than the limits allow."""
    counted: defaultdict[tuple[str, float, int], list[float]] = defaultdict(list)
    for request in requests:
        counted[limit_of(request)].append(request.time)
    return [
        f"{last - first + 1} x {what} within {times[last] - times[first]:.2f} s"
        for (what, per_second, at_once), times in counted.items()
        for first in range(len(times))
        for last in range(first, len(times))
        if last - first + 1 > at_once + per_second * (times[last] - times[first] + HELD_UP_S)
    ]


def test_eight_workers_keep_one_pace(fly: Cloud, runs: Forks, tmp_path: Path) -> None:
    """They create in one app and, without an agent, exec in one machine, all at once."""
    project = Project(tmp_path, TESTS)
    ended = runs.run(project, "-n", "8", "--dist=each", "--fly-agent=off", env=fly.environment)
    ended.has("8 passed", "9 machine(s)")
    requests = fly.requests()
    assert exceeded(requests) == []
    # so that there was something to exceed
    assert fly.count("POST machines") == 9
    busiest = max(sum(r.path == request.path for r in requests) for request in requests)
    assert busiest >= 9
