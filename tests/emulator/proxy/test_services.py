from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from typing import Any

import httpx
import pytest

from tests.emulator.fidelity import shows
from tests.emulator.proxy.programs import echo, mirror
from tests.emulator.proxy.world import HTTP, HTTPS, World, service


@pytest.fixture
def trusting(world: World) -> ssl.SSLContext:
    """TLS for clients that trust the proxy's CA and nothing else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=world.run(world.proxy.ca_pem()).decode())
    return context


def test_every_external_port_is_listed_with_its_address(world: World) -> None:
    ranged = {"start_port": 9000, "end_port": 9002}
    world.add("m1", mirror(), services=[service(), service(ranged, {"port": 7})])
    world.add("m2", mirror(), app="other", services=[service({"port": 7})])
    listing = world.proxy.listing()
    assert set(listing) == {"web", "other"}
    assert set(listing["web"]) == {80, 443, 7, 9000, 9001, 9002}
    addresses = [address for ports in listing.values() for address in ports.values()]
    assert len(set(addresses)) == 7
    assert all(address.startswith("127.0.0.1:") for address in addresses)


def test_addresses_follow_the_configs_and_stay_the_same(world: World) -> None:
    world.add("m1", mirror())
    before = world.proxy.listing()["web"]
    world.add("m2", mirror(), services=[service(), service({"port": 7})])
    after = world.proxy.listing()["web"]
    assert {80: after[80], 443: after[443]} == before
    del world.records["m2"]
    world.call(lambda: world.proxy.sync("web"))
    assert world.proxy.listing()["web"] == before
    with pytest.raises(ConnectionRefusedError):
        world.run(_visit(after[7]))


def test_a_wide_range_is_listed_in_part_and_served_whole_by_the_front(world: World) -> None:
    ranged = {"start_port": 10000, "end_port": 19999, "handlers": ["http"]}
    world.add("m1", mirror(), services=[service(ranged)])
    assert set(world.proxy.listing()["web"]) == set(range(10000, 10064))
    answer = httpx.get(world.proxy.url, headers={"Host": "web.fly.dev:19999"}, trust_env=False)
    assert answer.status_code == 200


def test_udp_services_are_not_listed(world: World) -> None:
    world.add("m1", services=[service({"port": 53}, protocol="udp")])
    assert world.proxy.listing() == {}


def test_the_http_port_answers_without_a_host_name(world: World) -> None:
    world.add("m1", mirror())
    seen = httpx.get("http://{}:{}/".format(*world.address(80)), trust_env=False).json()
    assert seen["headers"]["fly-forwarded-port"] == "80"
    assert seen["headers"]["x-forwarded-proto"] == "http"


@shows("proxy", "handlers `tls` and `http` together", "docs")
def test_tls_and_http(world: World, trusting: ssl.SSLContext) -> None:
    world.add("m1", mirror())
    url = "https://{}:{}/".format(*world.address(443))
    with httpx.Client(verify=trusting, trust_env=False) as client:
        headers = client.get(url).json()["headers"]
        assert headers["x-forwarded-proto"] == "https"
        assert headers["fly-forwarded-port"] == "443"
        posted = client.post(url, content=b"x" * 500_000).json()
    assert len(posted["body"]) == 500_000


def test_the_certificate_is_good_for_names_of_apps(world: World, trusting: ssl.SSLContext) -> None:
    world.add("m1", mirror())
    with (
        socket.create_connection(world.address(443), timeout=60) as plain,
        trusting.wrap_socket(plain, server_hostname="web.fly.dev") as visitor,
    ):
        visitor.sendall(b"GET / HTTP/1.1\r\nHost: web.fly.dev\r\nConnection: close\r\n\r\n")
        assert visitor.recv(65536).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("handlers", "options", "offered", "agreed"),
    [
        (["tls", "http"], {}, ["http/1.1"], "http/1.1"),
        (["tls", "http"], {}, ["h2", "http/1.1"], "h2"),
        (["tls"], {}, ["h2"], "h2"),
        (["tls"], {"alpn": ["mqtt"]}, ["h2", "mqtt"], "mqtt"),
        (["tls"], {"alpn": ["mqtt"]}, ["http/1.1"], None),
    ],
)
def test_protocols_are_negotiated_as_configured(
    world: World,
    trusting: ssl.SSLContext,
    handlers: list[str],
    options: dict[str, Any],
    offered: list[str],
    agreed: str | None,
) -> None:
    port = {"port": 443, "handlers": handlers, "tls_options": options}
    world.add("m1", echo, services=[service(port)])
    trusting.set_alpn_protocols(offered)
    with (
        socket.create_connection(world.address(443), timeout=60) as plain,
        trusting.wrap_socket(plain, server_hostname="web.fly.dev") as visitor,
    ):
        assert visitor.selected_alpn_protocol() == agreed


@shows("proxy", "`tls_options.versions`", "docs")
def test_tls_versions_are_limited_as_configured(world: World, trusting: ssl.SSLContext) -> None:
    port = {"port": 443, "handlers": ["tls"], "tls_options": {"versions": ["TLSv1.2"]}}
    world.add("m1", echo, services=[service(port)])
    with (
        socket.create_connection(world.address(443), timeout=60) as plain,
        trusting.wrap_socket(plain, server_hostname="localhost") as visitor,
    ):
        assert visitor.version() == "TLSv1.2"


@shows("proxy", "handler `tls` alone takes TLS off, and the bytes pass", "docs")
def test_tls_alone_is_taken_off_and_the_bytes_pass(world: World, trusting: ssl.SSLContext) -> None:
    world.add("m1", echo, services=[service({"port": 443, "handlers": ["tls"]})])
    with (
        socket.create_connection(world.address(443), timeout=60) as plain,
        trusting.wrap_socket(plain, server_hostname="localhost") as visitor,
    ):
        for sent in (b"hello", b"x" * 100_000):
            visitor.sendall(sent)
            received = b""
            while len(received) < len(sent):
                received += visitor.recv(65536)
            assert received == sent


def test_a_visitor_without_tls_is_turned_away(world: World) -> None:
    world.add("m1", mirror())
    with socket.create_connection(world.address(443), timeout=60) as visitor:
        visitor.sendall(b"GET / HTTP/1.1\r\nHost: web.fly.dev\r\n\r\n")
        assert not visitor.recv(65536).startswith(b"HTTP")
    assert world.connects == []


@pytest.mark.parametrize("refuse_gss_first", [False, True])
def test_postgres_clients_ask_for_tls_first(
    world: World, trusting: ssl.SSLContext, *, refuse_gss_first: bool
) -> None:
    world.add("m1", echo, services=[service({"port": 5432, "handlers": ["pg_tls"]})])
    with socket.create_connection(world.address(5432), timeout=60) as plain:
        if refuse_gss_first:
            plain.sendall(struct.pack("!II", 8, 80877104))
            assert plain.recv(1) == b"N"
        plain.sendall(struct.pack("!II", 8, 80877103))
        assert plain.recv(1) == b"S"
        with trusting.wrap_socket(plain, server_hostname="web.fly.dev") as visitor:
            visitor.sendall(b"startup")
            assert visitor.recv(7) == b"startup"


def test_postgres_clients_without_tls_are_told_so(world: World) -> None:
    world.add("m1", echo, services=[service({"port": 5432, "handlers": ["pg_tls"]})])
    with socket.create_connection(world.address(5432), timeout=60) as visitor:
        visitor.sendall(struct.pack("!II", 16, 196608) + b"user\0me\0")
        answer = visitor.recv(65536)
    assert answer[:1] == b"E"
    assert struct.unpack("!I", answer[1:5])[0] == len(answer) - 1
    assert b"TLS connections only" in answer


@shows("proxy", "handler `proxy_proto`, versions 1 and 2", "docs")
def test_the_proxy_protocol_names_the_visitor(world: World) -> None:
    one = {"port": 5000, "handlers": ["proxy_proto"]}
    two = {"port": 5001, "handlers": ["proxy_proto"], "proxy_proto_options": {"version": "v2"}}
    world.add("m1", echo, services=[service(one, two)])
    with socket.create_connection(world.address(5000), timeout=60) as visitor:
        visitor.sendall(b"hello")
        expected = b"PROXY TCP4 127.0.0.1 127.0.0.1 %d 5000\r\nhello"
        assert _read(visitor, 5) == expected % visitor.getsockname()[1]
    with socket.create_connection(world.address(5001), timeout=60) as visitor:
        visitor.sendall(b"hello")
        received = _read(visitor, 5)
        port = visitor.getsockname()[1]
    assert received[:16] == b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"
    addresses = b"\x7f\0\0\x01" * 2 + struct.pack("!HH", port, 5001)
    assert received[16:] == addresses + b"hello"


@shows("proxy", "raw TCP connections are spread over machines, and limited", "docs")
def test_raw_connections_are_spread_and_limited(world: World) -> None:
    limits = {"type": "connections", "soft_limit": 1, "hard_limit": 1}
    for name in "ab":

        async def program(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str = name
        ) -> None:
            writer.write(name.encode())
            await reader.read()

        world.add(name, program, services=[service({"port": 7}, concurrency=limits)])
    visitors = [socket.create_connection(world.address(7), timeout=60) for _ in range(2)]
    assert sorted(visitor.recv(1) for visitor in visitors) == [b"a", b"b"]
    with socket.create_connection(world.address(7), timeout=60) as third:
        freed = visitors.pop()
        freed.close()
        assert third.recv(1) in (b"a", b"b")
    visitors.pop().close()


def test_a_raw_visitor_whom_nobody_takes_is_hung_up_on(world: World) -> None:
    world.add("m1", state="stopped", services=[service({"port": 7})])
    with socket.create_connection(world.address(7), timeout=60) as visitor:
        assert visitor.recv(1) == b""
    assert any("m1 is stopped" in line for line in world.logged)


def test_slow_heads_are_limited_as_configured(world: World) -> None:
    port = HTTP | {"http_options": {"headers_read_timeout": 0.1}}
    world.add("m1", mirror(), services=[service(port)])
    with socket.create_connection(world.address(80), timeout=60) as visitor:
        visitor.sendall(b"GET / HTTP/1.1\r\n")
        assert visitor.recv(65536).startswith(b"HTTP/1.1 408 ")


def test_two_ports_of_one_service_lead_to_the_same_program(world: World) -> None:
    world.add("m1", mirror("m1"), services=[service(HTTP, HTTPS, {"port": 8080, "handlers": []})])
    for port in (80, 8080):
        url = "http://{}:{}/".format(*world.address(port))
        assert httpx.get(url, trust_env=False).json()["machine"] == "m1"


async def _visit(address: str) -> None:
    host, _, port = address.rpartition(":")
    await asyncio.open_connection(host, int(port))


def _read(visitor: socket.socket, least: int) -> bytes:
    received = b""
    while not received.endswith(b"hello") or len(received) < least:
        received += visitor.recv(65536)
    return received
