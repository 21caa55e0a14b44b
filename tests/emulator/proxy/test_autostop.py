from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from pytest_flymachines.emulator.config import MachineConfig, decode_hook
from pytest_flymachines.emulator.proxy.autostop import excess
from pytest_flymachines.emulator.proxy.directory import MachineRecord
from pytest_flymachines.emulator.proxy.loads import Loads
from tests.emulator.fidelity import shows


def machine(
    machine_id: str,
    *,
    region: str = "ord",
    state: str = "started",
    autostop: str | bool | None = "stop",
    minimum: int | None = None,
    soft: int = 2,
    config: dict[str, Any] | None = None,
) -> MachineRecord:
    service: dict[str, Any] = {
        "protocol": "tcp",
        "internal_port": 8080,
        "autostop": autostop,
        "concurrency": {"soft_limit": soft},
    }
    if minimum is not None:
        service["min_machines_running"] = minimum
    parsed = msgspec.convert(
        {"services": [service]} | (config or {}), MachineConfig, dec_hook=decode_hook
    )
    return MachineRecord(id=machine_id, app="web", region=region, state=state, config=parsed)


def passes(
    machines: list[MachineRecord], load: dict[str, int] | None = None, *, idle_s: float = 0.0
) -> dict[str, str]:
    """What one pass wants to do, with so much work in each machine."""

    async def run() -> dict[str, str]:
        loads = Loads()
        for machine_id, number in (load or {}).items():
            for _ in range(number):
                loads.enter(machine_id, 8080)
        return dict(excess(machines, loads, idle_s=idle_s))

    return asyncio.run(run())


@shows("proxy", "`autostop`: a lone machine without load is stopped, or suspended", "docs")
@pytest.mark.parametrize(
    ("autostop", "action"),
    [("stop", "stop"), (True, "stop"), ("suspend", "suspend")],
)
def test_a_lone_machine_without_work_is_stopped_or_suspended(
    autostop: str | bool, action: str
) -> None:
    assert passes([machine("a", autostop=autostop)]) == {"a": action}


@pytest.mark.parametrize("autostop", ["off", False, None])
def test_without_autostop_machines_stay_up(autostop: str | bool | None) -> None:
    assert passes([machine("a", autostop=autostop)]) == {}


def test_a_lone_machine_with_work_stays_up() -> None:
    assert passes([machine("a")], {"a": 1}) == {}


@shows("proxy", "of several machines without work at most one goes each time", "docs")
def test_of_several_the_least_loaded_goes_one_at_a_time() -> None:
    assert passes([machine("a"), machine("b"), machine("c")], {"a": 2, "c": 1}) == {"b": "stop"}


@shows("proxy", "too many are those beyond the ones above their `soft_limit`, and one", "docs")
def test_machines_above_their_soft_limit_keep_one_more_up() -> None:
    machines = [machine("a"), machine("b"), machine("c")]
    assert passes(machines, {"a": 3}) in ({"b": "stop"}, {"c": "stop"})
    assert passes(machines, {"a": 3, "b": 3}) == {}
    assert passes(machines[:2], {"a": 3}) == {}


def test_each_region_and_group_is_looked_at_alone() -> None:
    worker = {"metadata": {"fly_process_group": "worker"}}
    machines = [machine("a"), machine("b", region="fra"), machine("w", config=worker)]
    assert set(passes(machines)) == {"a", "b", "w"}
    assert set(passes([machine("a"), machine("b")])) in ({"a"}, {"b"})


@shows("proxy", "`min_machines_running` counts in the primary region only", "docs")
def test_the_minimum_counts_in_the_primary_region_only() -> None:
    primary = {"env": {"PRIMARY_REGION": "ord"}}
    machines = [
        machine("a", minimum=1, config=primary),
        machine("b", minimum=1, region="fra", config=primary),
    ]
    assert passes(machines) == {"b": "stop"}
    assert passes([*machines, machine("c", minimum=1, config=primary)]).keys() - {"b"} in (
        {"a"},
        {"c"},
    )


def test_machines_that_do_not_run_and_those_without_services_are_left_alone() -> None:
    assert passes([machine("a", state="stopped"), machine("b", config={"services": []})]) == {}


def test_a_service_that_must_stay_up_keeps_its_machine_up() -> None:
    services = [
        {"protocol": "tcp", "internal_port": 1, "autostop": "stop"},
        {"protocol": "tcp", "internal_port": 2},
    ]
    assert passes([machine("a", config={"services": services})]) == {}


def test_a_machine_is_left_alone_for_a_while_after_its_last_work() -> None:
    async def run() -> list[dict[str, str]]:
        loads, machines = Loads(), [machine("a")]
        passes = [excess(machines, loads, idle_s=0.05)]
        await asyncio.sleep(0.1)
        loads.enter("a", 8080).close()
        passes.append(excess(machines, loads, idle_s=60))
        await asyncio.sleep(0.1)
        passes.append(excess(machines, loads, idle_s=0.05))
        passes.append(excess([machine("a", state="stopped")], loads, idle_s=0.05))
        passes.append(excess(machines, loads, idle_s=0.05))
        return [dict(one) for one in passes]

    assert asyncio.run(run()) == [{}, {}, {"a": "stop"}, {}, {}]
