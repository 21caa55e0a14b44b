from __future__ import annotations

import asyncio
import hashlib
import socket
import ssl
import threading
from collections.abc import Iterator

import h2.connection
import httpx
import pytest

from tests.emulator.fidelity import shows
from tests.emulator.proxy.programs import mirror, raw, says
from tests.emulator.proxy.world import World, service


@pytest.fixture
def visitor(world: World) -> Iterator[httpx.Client]:
    """Speaks HTTP/2 with app `web` on port 443."""
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.load_verify_locations(cadata=world.run(world.proxy.ca_pem()).decode())
    world.add("m1", mirror("m1"))
    with httpx.Client(
        base_url="https://{}:{}".format(*world.address(443)),
        http1=False,
        http2=True,
        verify=trusting,
        trust_env=False,
        timeout=20,
    ) as visitor:
        yield visitor


def program(world: World, handle: object) -> None:
    """Let another program run in the machine."""
    world.kill("m1")
    world.add("m1", handle)  # type: ignore[arg-type]  # a program


def test_the_machine_gets_the_request_in_http_1(world: World, visitor: httpx.Client) -> None:
    answer = visitor.post("/p?q=1", content=b"body", headers={"X-Own": "1", "Cookie": "a=1; b=2"})
    assert answer.http_version == "HTTP/2"
    assert answer.headers["via"] == "2 fly.io"
    seen = answer.json()
    assert (seen["method"], seen["target"], seen["body"]) == ("POST", "/p?q=1", "body")
    headers = seen["headers"]
    assert headers["host"].startswith("127.0.0.1:")
    assert (headers["x-own"], headers["cookie"]) == ("1", "a=1; b=2")
    assert (headers["via"], headers["x-forwarded-proto"]) == ("2 fly.io", "https")


def test_many_requests_share_a_connection(world: World) -> None:
    world.add("m1", mirror())

    async def visit() -> list[str]:
        base_url = "https://{}:{}".format(*world.address(443))
        async with httpx.AsyncClient(
            base_url=base_url, http1=False, http2=True, verify=False, trust_env=False
        ) as client:
            await client.get("/")
            answers = await asyncio.gather(*(client.get(f"/{number}") for number in range(60)))
        return [answer.json()["target"] for answer in answers]

    assert asyncio.run(visit()) == [f"/{number}" for number in range(60)]


def test_a_body_of_unknown_length_arrives_in_pieces(world: World, visitor: httpx.Client) -> None:
    pieces = (b"x" * 50_000 for _ in range(10))
    seen = visitor.post("/", content=pieces).json()
    assert len(seen["body"]) == 500_000
    assert seen["headers"]["transfer-encoding"] == "chunked"


def test_large_bodies_pass_within_the_windows_of_both_sides(
    world: World, visitor: httpx.Client
) -> None:
    piece = bytes(range(256)) * 256

    async def turn_around(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r")[0])
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length)
        while length:
            data = await reader.read(min(length, 1 << 16))
            length -= len(data)
            writer.write(data)
            await writer.drain()

    program(world, turn_around)
    sent = piece * 128
    answer = visitor.post("/", content=sent)
    assert hashlib.sha256(answer.content).digest() == hashlib.sha256(sent).digest()


def test_answers_of_the_proxy_itself_and_head_requests(world: World, visitor: httpx.Client) -> None:
    assert visitor.head("/").content == b""
    world.change("m1", state="stopped")
    answer = visitor.get("/")
    assert (answer.status_code, "is stopped" in answer.text) == (503, True)
    assert visitor.head("/").status_code == 503


def test_trailers_and_early_hints_do_not_disturb(world: World, visitor: httpx.Client) -> None:
    chunked = b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nX-Sum: 2\r\n\r\n"
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"
    program(world, raw(hints + b"HTTP/1.1 200 OK\r\n" + chunked))
    assert visitor.get("/").text == "ab"


def test_an_answer_that_breaks_off_ends_its_stream_only(
    world: World, visitor: httpx.Client
) -> None:
    async def breaks_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = 9 if head.startswith(b"GET /cut ") else 4
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\npart" % length)

    program(world, breaks_off)
    with pytest.raises(httpx.RemoteProtocolError):
        visitor.get("/cut")
    assert visitor.get("/whole").text == "part"


def test_a_request_is_replayed(world: World, visitor: httpx.Client) -> None:
    program(world, says("", fly_replay="instance=t"))
    world.add("t", mirror("t"), region="fra")
    assert visitor.post("/", content=b"body").json()["machine"] == "t"


def test_an_upload_that_is_answered_early_ends(world: World, visitor: httpx.Client) -> None:
    program(world, raw(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno"))
    assert visitor.post("/", content=b"x" * 5_000_000).text == "no"
    program(world, mirror("m1"))
    assert visitor.get("/").json()["machine"] == "m1"


def test_a_visitor_who_gives_up_a_stream_takes_the_request_with_him(world: World) -> None:
    entered, left = threading.Event(), threading.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        entered.set()
        while await reader.read(65536):
            pass
        left.set()

    world.add("m1", slow)
    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE
    blind.set_alpn_protocols(["h2"])
    http = h2.connection.H2Connection()
    http.initiate_connection()
    fields = {":method": "GET", ":path": "/", ":scheme": "https", ":authority": "web.fly.dev"}
    http.send_headers(1, list(fields.items()), end_stream=True)
    with (
        socket.create_connection(world.address(443), timeout=60) as plain,
        blind.wrap_socket(plain) as visitor,
    ):
        visitor.sendall(http.data_to_send())
        assert entered.wait(60)
        http.reset_stream(1)
        visitor.sendall(http.data_to_send())
        assert left.wait(60)


@shows("proxy", "`tls_options.alpn` says whether HTTP/2 is spoken", "docs")
@pytest.mark.parametrize("configured", [["http/1.1"], ["h2", "http/1.1"]])
def test_the_configured_protocols_are_the_ones_spoken(world: World, configured: list[str]) -> None:
    port = {"port": 443, "handlers": ["tls", "http"], "tls_options": {"alpn": configured}}
    world.add("m1", mirror(), services=[service(port)])
    with httpx.Client(http2=True, verify=False, trust_env=False) as client:
        answer = client.get("https://{}:{}/".format(*world.address(443)))
    assert answer.http_version == ("HTTP/2" if "h2" in configured else "HTTP/1.1")


def test_streams_of_bytes_come_as_they_are_written(world: World, visitor: httpx.Client) -> None:
    go_on = asyncio.Event()

    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nfirst")
        await go_on.wait()
        writer.write(b"second")

    program(world, trickle)
    with visitor.stream("GET", "/") as answer:
        parts = answer.iter_raw()
        assert next(parts) == b"first"
        world.call(go_on.set)
        assert next(parts) == b"second"
