from __future__ import annotations

import pytest

from pytest_flymachines.emulator.ids import Ulids, machine_id, machine_name, private_ip, volume_id
from pytest_flymachines.emulator.wiretime import Duration, DurationError, rfc3339, rfc3339_ms


@pytest.mark.parametrize(
    ("text", "ns", "shown"),
    [
        ("0", 0, "0s"),
        ("0s", 0, "0s"),
        ("15s", 15_000_000_000, "15s"),
        ("60s", 60_000_000_000, "1m0s"),
        ("1m30s", 90_000_000_000, "1m30s"),
        ("1h", 3_600_000_000_000, "1h0m0s"),
        ("1.5s", 1_500_000_000, "1.5s"),
        (".5s", 500_000_000, "500ms"),
        ("1.5ms", 1_500_000, "1.5ms"),
        ("10us", 10_000, "10µs"),
        ("7ns", 7, "7ns"),
        ("-1m", -60_000_000_000, "-1m0s"),
    ],
)
def test_durations_are_read_and_written_as_go_does(text: str, ns: int, shown: str) -> None:
    duration = Duration.parse(text)
    assert duration.ns == ns
    assert str(duration) == shown
    assert Duration.parse(shown) == duration


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", 'time: invalid duration ""'),
        ("soon", 'time: invalid duration "soon"'),
        ("10", 'time: missing unit in duration "10"'),
        ("10d", 'time: unknown unit "d" in duration "10d"'),
        ("-", 'time: invalid duration "-"'),
        ("1s 2s", 'time: unknown unit "s " in duration "1s 2s"'),
    ],
)
def test_bad_durations_get_gos_text(text: str, error: str) -> None:
    with pytest.raises(DurationError) as caught:
        Duration.parse(text)
    assert str(caught.value) == error


def test_times() -> None:
    assert rfc3339(1_699_408_350_299) == "2023-11-08T01:52:30Z"
    assert rfc3339_ms(1_699_408_350_299) == "2023-11-08T01:52:30.299Z"


def test_ulids_grow_within_a_millisecond() -> None:
    ulids = Ulids()
    made = [ulids.new() for _ in range(5000)]
    assert made == sorted(set(made))
    assert {len(ulid) for ulid in made} == {26}


def test_ids() -> None:
    machine = machine_id()
    assert len(machine) == 14
    assert volume_id().startswith("vol_")
    assert machine_name().count("-") == 2
    address = private_ip("personal", "default", machine)
    assert address.rpartition(":")[0] != private_ip("personal", "other", machine).rpartition(":")[0]
    assert address.split(":")[:3] == private_ip("personal", "default", machine_id()).split(":")[:3]
