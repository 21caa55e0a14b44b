from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from pytest_flymachines.emulator.proxy import udp
from tests.emulator.fidelity import shows
from tests.emulator.proxy.world import World

SERVICE = {"protocol": "udp", "internal_port": 8080, "ports": [{"port": 53}]}


class Echo:
    """A program that answers each datagram with its own name, and who asked."""

    def __init__(self, world: World, name: str) -> None:
        self.socket = socket.socket(type=socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.visitors: set[int] = set()
        self.name = name
        world.udp[name] = self.socket.getsockname()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            data, visitor = self.socket.recvfrom(65536)
            if data == b"end":
                return
            self.visitors.add(visitor[1])
            self.socket.sendto(self.name.encode() + b" " + data, visitor)

    def close(self) -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as visitor:
            visitor.sendto(b"end", self.socket.getsockname())
        self._thread.join()
        self.socket.close()


@pytest.fixture
def echo(world: World) -> Iterator[Callable[..., Echo]]:
    """Add a machine with such a program."""
    made: list[Echo] = []

    def add(name: str, **fields: str) -> Echo:
        made.append(Echo(world, name))
        world.add(name, services=[SERVICE], **fields)  # type: ignore[arg-type]  # texts only
        return made[-1]

    yield add
    for one in made:
        one.close()


@pytest.fixture
def visitor() -> Iterator[socket.socket]:
    with socket.socket(type=socket.SOCK_DGRAM) as visitor:
        visitor.settimeout(10)
        yield visitor


def address(world: World) -> tuple[str, int]:
    host, _, port = world.proxy.udp_listing()["web"][53].rpartition(":")
    return host, int(port)


def ask(world: World, visitor: socket.socket, data: bytes) -> bytes:
    visitor.sendto(data, address(world))
    return visitor.recv(65536)


@shows("proxy", "a visitor keeps his machine over datagrams, while it runs (UDP)", "ours")
def test_each_visitor_has_a_session(
    world: World, echo: Callable[..., Echo], visitor: socket.socket
) -> None:
    near, far = echo("near"), echo("far", region="fra")
    assert [ask(world, visitor, b"%d" % n) for n in range(3)] == [b"near %d" % n for n in range(3)]
    assert len(near.visitors) == 1
    with socket.socket(type=socket.SOCK_DGRAM) as other:
        other.settimeout(10)
        assert ask(world, other, b"") == b"near "
        assert len(near.visitors) == 2
    world.change("near", state="stopped")
    assert ask(world, visitor, b"x") == b"far x"
    world.change("near", state="started")
    assert ask(world, visitor, b"y") == b"far y"
    assert len(far.visitors) == 1


def test_the_largest_datagram_passes(
    world: World, echo: Callable[..., Echo], visitor: socket.socket
) -> None:
    echo("m1")
    assert len(ask(world, visitor, b"x" * 60_000)) == 60_003


def test_a_session_without_datagrams_ends(
    world: World, echo: Callable[..., Echo], visitor: socket.socket
) -> None:
    program = echo("m1")
    ports = world.proxy._services._datagrams["web", 53]
    ports.session_s = 0.05
    ask(world, visitor, b"1")
    while ports._sessions:
        time.sleep(0.01)
    ask(world, visitor, b"2")
    assert len(program.visitors) == 2


def test_sessions_are_bounded(
    world: World, echo: Callable[..., Echo], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(udp, "MAX_SESSIONS", 4)
    program = echo("m1")
    for _ in range(10):
        with socket.socket(type=socket.SOCK_DGRAM) as visitor:
            visitor.settimeout(10)
            ask(world, visitor, b"x")
    assert len(program.visitors) > 4
    assert len(world.proxy._services._datagrams["web", 53]._sessions) == 4


def test_a_program_that_does_not_listen_yet_gets_what_comes_later(
    world: World, echo: Callable[..., Echo], visitor: socket.socket
) -> None:
    program = echo("m1")
    with socket.socket(type=socket.SOCK_DGRAM) as closed:
        closed.bind(("127.0.0.1", 0))
        world.udp["m1"] = closed.getsockname()
    visitor.sendto(b"lost", address(world))
    ports = world.proxy._services._datagrams["web", 53]
    while not any(session.machine_id for session in tuple(ports._sessions.values())):
        time.sleep(0.01)
    for _ in range(3):
        visitor.sendto(b"lost", address(world))
    world.udp["m1"] = program.socket.getsockname()
    world.change("m1", cordoned=True)
    visitor.sendto(b"nobody", address(world))
    while not world.logged:
        time.sleep(0.01)
    assert "UDP port 53: no machine that runs" in world.logged[0]
    world.change("m1", cordoned=False)
    assert ask(world, visitor, b"x") == b"m1 x"


def test_tcp_and_udp_share_a_number(world: World, echo: Callable[..., Echo]) -> None:
    echo("m1")
    world.add("m2", services=[SERVICE | {"protocol": "tcp"}])
    assert set(world.proxy.listing()["web"]) == set(world.proxy.udp_listing()["web"]) == {53}
    del world.records["m1"]
    world.call(lambda: world.proxy.sync("web"))
    assert world.proxy.udp_listing() == {}
    assert set(world.proxy.listing()["web"]) == {53}
