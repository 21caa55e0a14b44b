"""Choosing a machine: rules alone, without connections."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from pytest_flymachines.emulator.config import MachineConfig, decode_hook
from pytest_flymachines.emulator.proxy.directory import MachineRecord
from pytest_flymachines.emulator.proxy.loads import Loads
from pytest_flymachines.emulator.proxy.routing import Refusal, Target, Wish, choose, regions
from tests.emulator.fidelity import shows

WISH = Wish(app="web", port=80)


def machine(
    machine_id: str,
    *,
    region: str = "ord",
    state: str = "started",
    soft: int = 2,
    hard: int = 4,
    autostart: bool = False,
    config: dict[str, Any] | None = None,
    **more: Any,
) -> MachineRecord:
    service = {
        "protocol": "tcp",
        "internal_port": 8080,
        "autostart": autostart,
        "ports": [{"port": 80, "handlers": ["http"]}],
        "concurrency": {"type": "requests", "soft_limit": soft, "hard_limit": hard},
    }
    parsed = msgspec.convert(
        {"services": [service]} | (config or {}), MachineConfig, dec_hook=decode_hook
    )
    return MachineRecord(
        id=machine_id, app="web", region=region, state=state, config=parsed, **more
    )


def chosen(
    machines: list[MachineRecord],
    load: dict[str, int] | None = None,
    wish: Wish = WISH,
    **more: Any,
) -> str:
    """The id of the machine that was chosen, or the text of the refusal."""
    loads = Loads()
    for machine_id, number in (load or {}).items():
        for _ in range(number):
            loads.enter(machine_id, 8080)
    choice = choose(machines, wish, loads, edge="ord", **more)
    return choice.machine.id if isinstance(choice, Target) else choice.text


def passing(machines: list[MachineRecord], wish: Wish = WISH) -> bool:
    """Whether the refusal is one that may pass by."""
    choice = choose(machines, wish, Loads(), edge="ord")
    assert isinstance(choice, Refusal)
    return choice.passing


def test_the_least_loaded_machine_is_chosen() -> None:
    assert chosen([machine("a"), machine("b")], {"a": 1}) == "b"


def test_equal_machines_share_the_work() -> None:
    assert {chosen([machine("a"), machine("b")]) for _ in range(100)} == {"a", "b"}


@shows("proxy", "`soft_limit`: a machine above it comes after those below", "docs")
def test_a_machine_at_its_soft_limit_comes_after_those_below() -> None:
    assert chosen([machine("a"), machine("b", soft=5, hard=9)], {"a": 2, "b": 4}) == "b"
    assert chosen([machine("a"), machine("b")], {"a": 2, "b": 3}) == "a"


def test_a_machine_at_its_hard_limit_gets_nothing() -> None:
    text = chosen([machine("a")], {"a": 4})
    assert text == "[PR03] machine a is at its hard limit of 4"
    assert chosen([machine("a"), machine("b", region="fra")], {"a": 4}) == "b"


@shows("proxy", "the nearest region comes first", "docs")
def test_the_nearest_region_comes_first_even_when_it_is_busier() -> None:
    far = [machine("syd", region="syd"), machine("lhr", region="lhr"), machine("iad", region="iad")]
    assert chosen(far, {"iad": 1}) == "iad"
    assert chosen([*far, machine("ord")], {"ord": 3}) == "ord"


@shows("proxy", "cordoned machines, and those whose checks fail, get nothing", "docs")
def test_cordoned_and_failing_machines_are_left_out() -> None:
    assert chosen([machine("a", cordoned=True), machine("b")], {"b": 3}) == "b"
    assert chosen([machine("a", failing=frozenset({8080})), machine("b")], {"b": 3}) == "b"
    assert chosen([machine("a", failing=frozenset({9})), machine("b")], {"b": 3}) == "a"
    assert "cordoned" in chosen([machine("a", cordoned=True)])
    assert "checks of machine a do not pass" in chosen([machine("a", failing=frozenset({8080}))])


def test_a_machine_that_is_failing_or_coming_up_is_worth_waiting_for() -> None:
    assert passing([machine("a", failing=frozenset({8080}))])
    assert passing([machine("a", state="starting")])
    assert passing([machine("a", state="stopping", autostart=True)])
    for state in ("stopped", "failed", "stopping", "destroying"):
        assert not passing([machine("a", state=state)]), state


def test_a_sleeping_machine_is_woken_when_none_runs() -> None:
    assert chosen([machine("a", state="stopped", autostart=True)]) == "a"
    assert chosen([machine("a", state="suspended", autostart=True)]) == "a"


@pytest.mark.parametrize(
    "why",
    [
        {"autostart": False},
        {"leased": True},
        {"cordoned": True},
        {"config": {"disable_machine_autostart": True}},
    ],
)
def test_a_sleeping_machine_stays_asleep(why: dict[str, Any]) -> None:
    assert chosen([machine("a", state="stopped", **({"autostart": True} | why))]).startswith("[P")


def test_a_sleeping_machine_is_woken_when_all_that_run_are_busy() -> None:
    machines = [machine("a"), machine("b", state="stopped", autostart=True)]
    assert chosen(machines, {"a": 1}) == "a"
    assert chosen(machines, {"a": 2}) == "b"


def test_no_second_machine_is_woken_while_one_comes_up() -> None:
    machines = [
        machine("a", state="starting", autostart=True),
        machine("b", state="stopped", autostart=True),
    ]
    assert chosen(machines) == "[PM05] machine a is starting"
    assert chosen([*machines, machine("c")], {"c": 3}) == "c"


def test_a_forced_machine_has_no_substitute() -> None:
    wish = Wish(app="web", port=80, instance="a")
    assert chosen([machine("a"), machine("b")], {"a": 3}, wish) == "a"
    assert "is stopped" in chosen([machine("a", state="stopped"), machine("b")], wish=wish)
    assert "no machine a" in chosen([machine("b")], wish=wish)


def test_a_preferred_machine_is_taken_while_it_can() -> None:
    wish = Wish(app="web", port=80, prefer_instance="a")
    assert chosen([machine("a", region="syd"), machine("b")], {"a": 3}, wish) == "a"
    assert chosen([machine("a"), machine("b")], {"a": 4}, wish) == "b"
    asleep = machine("a", state="stopped", autostart=True)
    assert chosen([asleep, machine("b")], wish=wish) == "a"


def test_preferred_regions_are_tried_in_order() -> None:
    machines = [machine("fra", region="fra"), machine("iad", region="iad"), machine("ord")]
    wish = Wish(app="web", port=80, regions=regions("nrt,eu,iad"))
    assert chosen(machines, wish=wish) == "fra"
    assert chosen(machines[1:], wish=wish) == "iad"
    assert chosen(machines[2:], wish=wish) == "ord"


def test_forced_regions_have_no_substitute() -> None:
    wish = Wish(app="web", port=80, regions=regions("eu"), only_regions=True)
    assert chosen([machine("ord"), machine("fra", region="fra")], wish=wish) == "fra"
    assert chosen([machine("ord")], wish=wish).startswith("[PR01] app web has no machine in ams")


def test_machines_that_have_just_failed_come_last() -> None:
    machines = [machine("a"), machine("b")]
    assert chosen(machines, {"b": 3}, avoid=frozenset({"a"})) == "b"
    assert chosen(machines[:1], avoid=frozenset({"a"})) == "a"


def test_udp_services_are_not_of_this_proxy() -> None:
    udp = {"services": [{"protocol": "udp", "internal_port": 8080, "ports": [{"port": 80}]}]}
    assert "port 80 is not among the services" in chosen([machine("a", config=udp)])


def test_waiting_for_a_change_ends_with_the_work() -> None:
    async def run() -> int:
        loads = Loads()
        slot = loads.enter("a", 8080)
        waiting = asyncio.create_task(loads.change(60))
        await asyncio.sleep(0)
        slot.close()
        await waiting
        return loads.of("a", 8080)

    assert asyncio.run(run()) == 0
