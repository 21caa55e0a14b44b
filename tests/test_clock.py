from __future__ import annotations

import threading
import time

import pytest

from pytest_flymachines._clock import ReplayClock, SystemClock


def test_replay_time_moves_only_when_told() -> None:
    clock = ReplayClock()
    begun = time.monotonic()
    clock.sleep(3600)
    clock.advance(30.5)
    clock.advance(-5)
    assert clock.monotonic() == 3630.5
    assert time.monotonic() - begun < 3600


def test_each_thread_has_a_replay_time_of_its_own() -> None:
    """Threads replay their own requests, so one must not move the deadline of another."""
    clock = ReplayClock()
    clock.advance(10)
    other: list[float] = []

    def elsewhere() -> None:
        clock.advance(1)
        other.append(clock.monotonic())

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert other == [1.0]
    assert clock.monotonic() == 10.0


def test_system_time_passes_while_a_test_has_replaced_the_functions_of_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As freezegun does, and tests that must not sleep."""
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    clock = SystemClock()
    before = clock.monotonic()
    clock.sleep(0.01)
    assert clock.monotonic() >= before + 0.01


def test_sleeping_for_no_time_or_less_returns() -> None:
    SystemClock().sleep(0)
    SystemClock().sleep(-1)
