from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import pytest

from tests.emulator.fidelity import shows
from tests.emulator.proxy.programs import echo, says
from tests.emulator.proxy.world import World, service

AUTOSTART = [service(autostart=True)]


@pytest.mark.parametrize("state", ["stopped", "suspended"])
def test_a_request_wakes_a_machine_and_waits_for_it(
    world: World, client: httpx.Client, state: str
) -> None:
    world.boot_s = 0.1
    world.add("a", says("awake"), services=AUTOSTART, state=state)
    assert client.get("/").text == "awake"
    assert world.starts == ["a"]
    assert client.get("/").text == "awake"
    assert world.starts == ["a"]


def test_many_requests_wake_one_machine_once(world: World, client: httpx.Client) -> None:
    world.boot_s = 0.1
    for name in "ab":
        world.add(name, says(name), services=AUTOSTART, state="stopped")
    with ThreadPoolExecutor(10) as pool:
        answers = {answer.text for answer in pool.map(lambda _: client.get("/"), range(10))}
    assert answers == set(world.starts)
    assert len(world.starts) == 1


def test_waking_may_take_longer_than_a_request_waits_for_a_program(
    world: World, client: httpx.Client
) -> None:
    world.boot_s = 2.5
    world.add("a", says("awake"), services=AUTOSTART, state="stopped")
    assert client.get("/").text == "awake"


@shows("proxy", "`fly-force-instance-id` wakes that machine, though others run", "docs")
def test_a_forced_machine_is_woken_though_others_run(world: World, client: httpx.Client) -> None:
    world.add("a", says("a"), services=AUTOSTART)
    world.add("b", says("b"), services=AUTOSTART, state="stopped")
    assert client.get("/", headers={"fly-force-instance-id": "b"}).text == "b"


def test_a_start_that_is_refused_is_503_with_the_reason(world: World, client: httpx.Client) -> None:
    world.refuse_start = "could not reserve resource for machine"
    world.add("a", says("a"), services=AUTOSTART, state="stopped")
    answer = client.get("/")
    assert answer.status_code == 503
    assert "[PM01] machine a could not be started: could not reserve" in answer.text


def test_a_start_that_is_refused_leads_back_to_a_busy_machine(
    world: World, client: httpx.Client
) -> None:
    world.refuse_start = "no"
    world.add("a", says("a"), services=AUTOSTART, state="stopped")
    world.add("b", says("b"), services=[service(concurrency={"soft_limit": 1})])
    slot = world.call(lambda: world.proxy._loads.enter("b", 8080))
    assert client.get("/").text == "b"
    assert world.starts == ["a"]
    world.call(slot.close)


def test_a_leased_machine_is_not_woken(world: World, client: httpx.Client) -> None:
    world.add("a", says("a"), services=AUTOSTART, state="stopped", leased=True)
    answer = client.get("/")
    assert (answer.status_code, "leased" in answer.text) == (503, True)
    assert world.starts == []


def test_a_machine_that_stops_right_after_its_start_is_given_up(
    world: World, client: httpx.Client
) -> None:
    world.add("a", says("a"), services=AUTOSTART, state="stopped")
    begin = world.start

    async def start(machine_id: str) -> None:
        await begin(machine_id)
        world.records[machine_id] = replace(world.records[machine_id], state="stopped")

    world.start = start  # type: ignore[method-assign]  # a machine that crashes
    answer = client.get("/")
    assert (answer.status_code, "stopped again" in answer.text) == (503, True)
    assert world.starts == ["a"]


@shows("proxy", "raw TCP connections wake machines too", "docs")
def test_raw_connections_wake_machines_too(world: World) -> None:
    world.add("a", echo, services=[service({"port": 7}, autostart=True)], state="stopped")
    with socket.create_connection(world.address(7)) as visitor:
        visitor.sendall(b"hello")
        assert visitor.recv(5) == b"hello"
