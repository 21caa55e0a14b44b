from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.emulator.fidelity import shows
from tests.emulator.proxy.programs import mirror, says
from tests.emulator.proxy.world import PATIENT, World, service

ONE_AT_A_TIME = {"type": "requests", "soft_limit": 1, "hard_limit": 1}


class Gate:
    """A program that answers its name once the gate is open."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.entered = threading.Semaphore(0)
        self.open = False

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            self.entered.release()
            while not self.open:
                await asyncio.sleep(0.005)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(self.name))
            writer.write(self.name.encode())


@shows("proxy", "the machine with less work gets the request", "docs")
def test_work_goes_to_the_machine_with_less_of_it(world: World, client: httpx.Client) -> None:
    gates = [Gate("a"), Gate("b")]
    for gate in gates:
        world.add(gate.name, gate)
    with ThreadPoolExecutor() as pool:
        answers = [pool.submit(client.get, "/") for _ in range(6)]
        for gate in gates:
            for _ in range(3):
                assert gate.entered.acquire(timeout=60)
            gate.open = True
        assert sorted(answer.result().text for answer in answers) == list("aaabbb")


@shows("proxy", "`hard_limit`: no more work goes to a machine that has as much", "docs")
def test_a_request_beyond_the_hard_limit_waits_for_its_turn(
    world: World, client: httpx.Client
) -> None:
    gate = Gate("a")
    world.add("a", gate, services=[service(concurrency=ONE_AT_A_TIME)])
    with ThreadPoolExecutor() as pool:
        answers = [pool.submit(client.get, "/") for _ in range(3)]
        assert gate.entered.acquire(timeout=60)
        assert not gate.entered.acquire(timeout=0.2)
        gate.open = True
        assert [answer.result().status_code for answer in answers] == [200] * 3


def test_a_request_that_waits_too_long_is_503(world: World, client: httpx.Client) -> None:
    gate = Gate("a")
    world.add("a", gate, services=[service(concurrency=ONE_AT_A_TIME)])
    with ThreadPoolExecutor() as pool:
        first = pool.submit(client.get, "/")
        assert gate.entered.acquire(timeout=60)
        second = client.get("/")
        gate.open = True
        assert first.result().status_code == 200
    assert (second.status_code, "hard limit of 1" in second.text) == (503, True)
    assert any("hard limit" in line for line in world.logged)


def test_a_forced_machine_gets_the_request(world: World, client: httpx.Client) -> None:
    for name in "abc":
        world.add(name, says(name))
    for name in "abc":
        assert client.get("/", headers={"fly-force-instance-id": name}).text == name


def test_a_forced_machine_of_another_app_is_not_to_be_had(
    world: World, client: httpx.Client
) -> None:
    world.add("a", says("a"))
    world.add("other", says("other"), app="other")
    for instance in ("other", "nobody"):
        answer = client.get("/", headers={"fly-force-instance-id": instance})
        assert answer.status_code == 503
        assert f"app web has no machine {instance}" in answer.text


def test_a_forced_machine_that_sleeps_is_503_with_what_to_do(
    world: World, client: httpx.Client
) -> None:
    world.add("a", state="stopped")
    world.add("b", says("b"))
    answer = client.get("/", headers={"fly-force-instance-id": "a"})
    assert answer.status_code == 503
    assert "machine a is stopped" in answer.text
    assert "autostart: true" in answer.text


@shows("proxy", "`fly-prefer-instance-id`: the substitute is told whose it is", "docs")
def test_a_preferred_machine_that_cannot_is_named_to_its_substitute(
    world: World, client: httpx.Client
) -> None:
    world.add("a", mirror("a"))
    world.add("b", mirror("b"), cordoned=True)
    seen = client.get("/", headers={"fly-prefer-instance-id": "b"}).json()
    assert seen["machine"] == "a"
    assert seen["headers"]["fly-preferred-instance-unavailable"] == "b"
    seen = client.get("/", headers={"fly-prefer-instance-id": "a"}).json()
    assert "fly-preferred-instance-unavailable" not in seen["headers"]


@shows("proxy", "`fly-prefer-region`, `fly-force-region`", "docs")
def test_regions_are_preferred_and_forced(world: World, client: httpx.Client) -> None:
    world.add("near", says("near"))
    world.add("far", says("far"), region="fra")
    assert client.get("/").text == "near"
    assert client.get("/", headers={"fly-prefer-region": "eu"}).text == "far"
    assert client.get("/", headers={"fly-prefer-region": "nrt"}).text == "near"
    assert client.get("/", headers={"fly-force-region": "fra"}).text == "far"
    assert client.get("/", headers={"fly-force-region": "nrt"}).status_code == 503


@PATIENT
def test_checks_that_begin_to_pass_let_a_waiting_request_through(
    world: World, client: httpx.Client
) -> None:
    world.add("a", says("a"), failing=frozenset({8080}))
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(client.get, "/")
        time.sleep(0.1)
        assert not answer.done()
        world.change("a", failing=frozenset())
        assert answer.result().text == "a"


def test_a_machine_that_refuses_is_passed_over(world: World, client: httpx.Client) -> None:
    world.add("a", says("a"))
    world.add("b", says("b"))
    world.kill("a")
    assert {client.get("/").text for _ in range(8)} == {"b"}


@PATIENT
def test_a_program_that_comes_up_late_is_waited_for(world: World, client: httpx.Client) -> None:
    world.add("a")
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(client.get, "/")
        time.sleep(0.1)
        assert not answer.done()
        world.add("a", says("late"))
        assert answer.result().text == "late"


def test_a_program_that_never_listens_is_502_with_the_port(
    world: World, client: httpx.Client
) -> None:
    world.add("a")
    answer = client.get("/")
    assert answer.status_code == 502
    assert "[PC01] machine a refused the connection to port 8080" in answer.text
    assert "0.0.0.0:8080" in answer.text
