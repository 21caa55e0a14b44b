from __future__ import annotations

import socket

import pytest

from tests.emulator.proxy.programs import echo
from tests.emulator.proxy.world import World


def test_a_forward_leads_into_a_port_without_any_service(world: World) -> None:
    world.add("m1", echo, services=[])
    address = _open(world, "m1", 5555)
    with socket.create_connection(address, timeout=60) as visitor:
        visitor.sendall(b"hello")
        assert visitor.recv(5) == b"hello"
        visitor.shutdown(socket.SHUT_WR)
        assert visitor.recv(1) == b""


def test_asking_twice_gives_the_same(world: World) -> None:
    first, again, other = (_open(world, "m1", port) for port in (1, 1, 2))
    assert first == again != other
    assert world.proxy.forwards.listing() == {("m1", 1): first, ("m1", 2): other}


def test_closing_ends_listening_and_connections(world: World) -> None:
    world.add("m1", echo, services=[])
    forwards = world.proxy.forwards
    address = _open(world, "m1", 5555)
    with socket.create_connection(address, timeout=60) as visitor:
        visitor.sendall(b"x")
        assert visitor.recv(1) == b"x"
        assert world.run(forwards.close("m1", 5555)) == 1
        assert visitor.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
    assert world.run(forwards.close("m1", 5555)) == 0


def test_closing_by_machine_leaves_the_others(world: World) -> None:
    forwards = world.proxy.forwards
    for machine_id, port in (("m1", 1), ("m1", 2), ("m2", 1)):
        _open(world, machine_id, port)
    assert world.run(forwards.close("m1")) == 2
    assert set(forwards.listing()) == {("m2", 1)}


def test_a_port_that_nobody_listens_on_hangs_up_and_says_so(world: World) -> None:
    world.add("m1", services=[])
    address = _open(world, "m1", 9)
    with (
        pytest.raises(ConnectionResetError),
        socket.create_connection(address, timeout=60) as visitor,
    ):
        visitor.recv(1)
    assert any("forward into port 9" in line for line in world.logged)


def _open(world: World, machine_id: str, port: int) -> tuple[str, int]:
    return world.call(lambda: world.proxy.forwards.open(machine_id, port))


def test_a_forward_ends_with_its_machine(world: World) -> None:
    world.add("m1", echo, services=[])
    world.add("m2", echo, services=[])
    gone, stays = _open(world, "m1", 5555), _open(world, "m2", 5555)
    with socket.create_connection(gone, timeout=60) as visitor:
        visitor.sendall(b"x")
        assert visitor.recv(1) == b"x"
        del world.records["m1"]
        world.call(lambda: world.proxy.sync("web"))
        assert visitor.recv(1) == b""
    assert world.proxy.forwards.listing() == {("m2", 5555): stays}
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(gone)
