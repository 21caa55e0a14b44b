from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from pytest_flymachines.emulator.proxy.inside import Inside
from tests.emulator.proxy.programs import mirror
from tests.emulator.proxy.world import World

OWN = "/v1/apps/web/machines/m1"


@pytest.fixture
def inside(world: World, tmp_path: Path) -> Iterator[Inside]:
    """Ways to an API that is a mirror."""
    world.add("api", mirror())
    host, port = world.servers["api"].sockets[0].getsockname()

    def make() -> Inside:
        return Inside((host, port), "secret", tmp_path)

    inside = world.call(make)
    yield inside
    world.run(inside.close())
    assert list(tmp_path.iterdir()) == []


def at(path: Path) -> httpx.Client:
    """A client in the machine whose socket this is."""
    transport = httpx.HTTPTransport(uds=str(path))
    return httpx.Client(transport=transport, base_url="http://flaps", trust_env=False)


def test_a_machine_acts_on_itself_without_a_token(world: World, inside: Inside) -> None:
    path = world.call(lambda: inside.door("web", "m1"))
    with at(path) as client:
        for target in (OWN, f"{OWN}/suspend", f"{OWN}?x=1"):
            seen = client.post(target, content=b"body").json()
            assert seen["target"] == target
            assert seen["body"] == "body"
            assert seen["headers"]["authorization"] == "Bearer secret"
            assert seen["headers"]["host"].startswith("127.0.0.1:")


@pytest.mark.parametrize(
    "target", ["/v1/apps/web/machines", f"{OWN}0/stop", "/v1/apps/web/machines/m2/stop", "/"]
)
def test_the_token_is_not_lent_for_anything_else(world: World, inside: Inside, target: str) -> None:
    path = world.call(lambda: inside.door("web", "m1"))
    with at(path) as client:
        assert "authorization" not in client.get(target).json()["headers"]


def test_a_token_of_the_machine_goes_before_the_lent_one(world: World, inside: Inside) -> None:
    path = world.call(lambda: inside.door("web", "m1"))
    with at(path) as client:
        seen = client.get(OWN, headers={"Authorization": "Bearer own"}).json()
    assert seen["headers"]["authorization"] == "Bearer own"


def test_the_same_machine_keeps_its_socket_until_it_is_destroyed(
    world: World, inside: Inside
) -> None:
    path = world.call(lambda: inside.door("web", "m1"))
    assert world.call(lambda: inside.door("web", "m1")) == path
    world.run(inside.destroyed("m1"))
    assert not path.exists()


def test_a_path_longer_than_the_address_of_a_socket_will_do(world: World, tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()

    def make() -> Inside:
        return Inside(("127.0.0.1", 1), "secret", deep)

    inside = world.call(make)
    assert world.call(lambda: inside.door("web", "m1")).is_socket()
    world.run(inside.close())


def test_an_api_that_is_not_there_is_502(world: World, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        address = unused.getsockname()

    def make() -> Inside:
        return Inside(address, "secret", tmp_path)

    inside = world.call(make)
    path = world.call(lambda: inside.door("web", "m1"))
    with at(path) as client:
        answer = client.get(OWN)
    assert (answer.status_code, "the API does not answer" in answer.text) == (502, True)
    world.run(inside.close())
