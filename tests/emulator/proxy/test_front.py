from __future__ import annotations

import json
import socket

import httpx
import pytest

from tests.emulator.proxy.programs import echo, mirror, says
from tests.emulator.proxy.world import World, service


def test_the_host_chooses_the_app(world: World, client: httpx.Client) -> None:
    world.add("m1", says("web"))
    world.add("m2", says("other"), app="other")
    assert client.get("/").text == "web"
    assert client.get("/", headers={"Host": "other.fly.dev"}).text == "other"
    assert client.get("/", headers={"Host": "OTHER.fly.dev"}).text == "other"
    assert client.get("/", headers={"Host": "other.flycast"}).text == "other"


def test_the_port_in_the_host_chooses_the_service(world: World, client: httpx.Client) -> None:
    world.add(
        "m1",
        mirror(),
        services=[
            service({"port": 8080, "handlers": ["http"]}),
            service({"start_port": 9000, "end_port": 9002, "handlers": ["http", "tls"]}),
        ],
    )
    for port in (8080, 9001):
        seen = client.get("/", headers={"Host": f"web.fly.dev:{port}"}).json()
        assert seen["headers"]["fly-forwarded-port"] == str(port)


@pytest.mark.parametrize(
    ("ports", "chosen"),
    [((80, 443, 25), "443"), ((8080, 80), "80"), ((9000, 8080), "8080")],
)
def test_without_a_port_it_is_that_of_the_http_handler(
    world: World, client: httpx.Client, ports: tuple[int, ...], chosen: str
) -> None:
    services = [service({"port": port, "handlers": ["http"]}) for port in ports]
    world.add("m1", mirror(), services=[service({"port": 22}), *services])
    assert client.get("/").json()["headers"]["fly-forwarded-port"] == chosen


@pytest.mark.parametrize(
    ("host", "text"),
    [
        ("nothing.fly.dev", "no app belongs to host 'nothing.fly.dev'"),
        ("localhost", "send the Host header <app>.fly.dev"),
        ("web.fly.dev:81", "app web has no machine with a service on port 81"),
    ],
)
def test_an_address_that_leads_nowhere_is_404_with_the_reason(
    world: World, client: httpx.Client, host: str, text: str
) -> None:
    world.add("m1", mirror())
    answer = client.get("/", headers={"Host": host})
    assert answer.status_code == 404
    assert text in answer.text


def test_an_app_without_http_service_is_404(world: World, client: httpx.Client) -> None:
    world.add("m1", mirror(), services=[service({"port": 22})])
    answer = client.get("/")
    assert (answer.status_code, "http handler" in answer.text) == (404, True)


def test_method_path_query_and_body_arrive_as_they_were(world: World, client: httpx.Client) -> None:
    world.add("m1", mirror())
    seen = client.patch("/a%2Fb/%C3%A9?x=1&y=%20", content=b"body").json()
    assert seen["method"] == "PATCH"
    assert seen["target"] == "/a%2Fb/%C3%A9?x=1&y=%20"
    assert seen["body"] == "body"


def test_an_absolute_target_counts_before_the_host_header(world: World) -> None:
    world.add("m1", mirror())
    with socket.create_connection(world.front) as visitor:
        visitor.sendall(
            b"GET http://web.fly.dev/p?q HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        answer = _all(visitor)
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["target"] == "/p?q"


def test_status_reason_and_body_come_back(world: World, client: httpx.Client) -> None:
    world.add("m1", says("gone", status=410))
    answer = client.get("/")
    assert (answer.status_code, answer.text) == (410, "gone")


def test_a_head_request_has_the_length_but_no_body(world: World, client: httpx.Client) -> None:
    world.add("m1", says("four"))
    answer = client.head("/")
    assert (answer.headers["content-length"], answer.content) == ("4", b"")
    assert client.get("/").text == "four"


def test_connections_are_kept_on_both_sides(world: World, client: httpx.Client) -> None:
    world.add("m1", mirror())
    for _ in range(5):
        client.get("/")
    assert world.connects == ["m1"]


def test_another_visitor_gets_the_connection_that_is_idle(world: World) -> None:
    world.add("m1", mirror())
    for _ in range(3):
        httpx.get(world.proxy.url, headers={"Host": "web.fly.dev"}, trust_env=False)
    assert world.connects == ["m1"]


def test_small_parts_are_sent_at_once_into_machines(world: World, client: httpx.Client) -> None:
    world.add("m1", mirror())
    client.get("/")
    assert world.sockets[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_pipelined_requests_are_answered_in_order(world: World) -> None:
    world.add("m1", mirror())
    with socket.create_connection(world.front) as visitor:
        get = b"GET /%d HTTP/1.1\r\nHost: web.fly.dev\r\n"
        visitor.sendall(get % 1 + b"\r\n" + get % 2 + b"\r\n" + get % 3)
        visitor.sendall(b"Connection: close\r\n\r\n")
        answer = _all(visitor)
    assert [answer.index(b'"target": "/%d"' % number) for number in (1, 2, 3)] == sorted(
        answer.index(b'"target": "/%d"' % number) for number in (1, 2, 3)
    )


def test_a_port_without_the_http_handler_gets_the_bytes_as_they_are(world: World) -> None:
    world.add("m1", echo, services=[service({"port": 7})])
    sent = b"GET / HTTP/1.1\r\nHost: web.fly.dev:7\r\nx-Odd:  1\r\n\r\nrest"
    with socket.create_connection(world.front) as visitor:
        visitor.sendall(sent)
        visitor.shutdown(socket.SHUT_WR)
        assert _all(visitor) == sent


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: web.fly.dev\r\nContent-Length: x\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 300_000 + b"\r\n\r\n", b"431"),
        (b"CONNECT web.fly.dev:443 HTTP/1.1\r\nHost: web.fly.dev:443\r\n\r\n", b"405"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(world: World, sent: bytes, status: bytes) -> None:
    world.add("m1", mirror())
    with socket.create_connection(world.front) as visitor:
        visitor.sendall(sent)
        assert _all(visitor).startswith(b"HTTP/1.1 " + status)


def _all(visitor: socket.socket) -> bytes:
    visitor.settimeout(10)
    received = b""
    while piece := visitor.recv(65536):
        received += piece
    return received
