"""Programs that speak HTTP/2 in cleartext, as gRPC servers do."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import socket
import threading
from collections.abc import Callable

import h2.config
import h2.connection
import h2.errors
import h2.events
import httpx
import pytest

from tests.emulator.fidelity import shows
from tests.emulator.proxy.programs import mirror
from tests.emulator.proxy.world import HTTP, HTTPS, Program, World, service

H2 = {"http_options": {"h2_backend": True}}
SERVICES = [service(HTTP | H2, HTTPS | H2)]
Headers = list[tuple[str, str]]


class Served:
    """One stream of a program that speaks HTTP/2."""

    def __init__(self, http: h2.connection.H2Connection, stream: int, headers: Headers) -> None:
        self.http, self.stream, self.headers = http, stream, dict(headers)
        self.body = b""
        self.trailers: Headers = []

    def answer(self, status: int = 200, body: bytes = b"", **headers: str) -> None:
        fields = [(name.replace("_", "-"), value) for name, value in headers.items()]
        self.http.send_headers(self.stream, [(":status", str(status)), *fields])
        self.http.send_data(self.stream, body, end_stream=True)


def http2(handle: Callable[[Served], None]) -> Program:
    """Answers a request once it is whole."""

    async def program(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        http = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        )
        http.initiate_connection()
        streams: dict[int, Served] = {}
        while True:
            writer.write(http.data_to_send())
            data = await reader.read(65536)
            if not data or http.state_machine.state is h2.connection.ConnectionState.CLOSED:
                return
            for event in http.receive_data(data):
                match event:
                    case h2.events.RequestReceived():
                        served = Served(http, event.stream_id, event.headers)  # type: ignore[arg-type]  # decoded
                        streams[event.stream_id] = served
                    case h2.events.DataReceived():
                        streams[event.stream_id].body += event.data or b""
                        length = event.flow_controlled_length or 0
                        http.acknowledge_received_data(length, event.stream_id)
                    case h2.events.TrailersReceived():
                        streams[event.stream_id].trailers = event.headers  # type: ignore[assignment]  # decoded
                    case h2.events.StreamEnded():
                        handle(streams.pop(event.stream_id))

    return program


def shown(served: Served) -> None:
    served.answer(body=json.dumps([served.headers, served.body.decode()]).encode())


@shows("proxy", "`http_options.h2_backend`: the program is spoken to in HTTP/2 cleartext", "docs")
def test_the_program_gets_http_2(world: World, client: httpx.Client) -> None:
    world.add("m1", http2(shown), services=SERVICES)
    for number in range(3):
        headers, body = client.post(f"/p?q={number}", content=b"body").json()
        assert (headers[":method"], headers[":path"]) == ("POST", f"/p?q={number}")
        assert (headers[":authority"], headers[":scheme"]) == ("web.fly.dev", "http")
        assert (headers["content-length"], body) == ("4", "body")
        assert headers["fly-client-ip"] == "127.0.0.1"
        assert not {"host", "connection", "transfer-encoding"} & set(headers)
    assert world.connects == ["m1"]  # one connection for all
    assert client.get("/").json()[1] == ""


@shows("proxy", "gRPC: `te: trailers` reaches the program, its trailers the visitor", "docs")
def test_trailers_pass_both_ways(world: World) -> None:
    seen: list[Served] = []

    def handle(served: Served) -> None:
        seen.append(served)
        served.http.send_headers(served.stream, [(":status", "200")])
        served.http.send_data(served.stream, served.body)
        served.http.send_headers(served.stream, [("grpc-status", "0")], end_stream=True)

    world.add("m1", http2(handle), services=SERVICES)
    answer = asyncio.run(_grpc(*world.address(443)))
    assert answer == ([b"\0\0\0\0\1x"], {b"grpc-status": b"0"})
    assert (seen[0].headers["te"], seen[0].trailers) == ("trailers", [("x-sum", "1")])


async def _grpc(host: str, port: int) -> tuple[list[bytes], dict[bytes, bytes]]:
    """A call with trailers, as a client makes it that httpx is not."""
    import ssl

    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE
    blind.set_alpn_protocols(["h2"])
    reader, writer = await asyncio.open_connection(host, port, ssl=blind)
    http = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
    http.initiate_connection()
    fields = {":method": "POST", ":path": "/s/m", ":scheme": "https", ":authority": "web.fly.dev"}
    fields |= {"te": "trailers", "content-type": "application/grpc"}
    http.send_headers(1, list(fields.items()))
    http.send_data(1, b"\0\0\0\0\1x")
    http.send_headers(1, [("x-sum", "1")], end_stream=True)
    pieces: list[bytes] = []
    trailers: dict[bytes, bytes] = {}
    try:
        while True:
            writer.write(http.data_to_send())
            for event in http.receive_data(await asyncio.wait_for(reader.read(65536), 10)):
                match event:
                    case h2.events.DataReceived():
                        pieces.append(event.data or b"")
                    case h2.events.TrailersReceived():
                        trailers = dict(event.headers or ())
                    case h2.events.StreamEnded():
                        return [b"".join(pieces)], trailers
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def test_trailers_are_left_out_where_the_visitor_could_not_take_them(
    world: World, client: httpx.Client
) -> None:
    def handle(served: Served) -> None:
        served.http.send_headers(served.stream, [(":status", "200"), ("content-length", "2")])
        served.http.send_data(served.stream, b"ok")
        served.http.send_headers(served.stream, [("x-sum", "0")], end_stream=True)

    world.add("m1", http2(handle), services=SERVICES)
    assert [client.get("/").text for _ in range(2)] == ["ok", "ok"]


def test_large_bodies_pass_within_the_windows(world: World, client: httpx.Client) -> None:
    seen: list[bytes] = []

    def handle(served: Served) -> None:
        seen.append(served.body)
        served.answer(body=b"ok")

    world.add("m1", http2(handle), services=SERVICES)
    sent = bytes(range(256)) * 8000
    for _ in range(2):
        assert client.post("/", content=sent).text == "ok"
    assert {hashlib.sha256(one).digest() for one in seen} == {hashlib.sha256(sent).digest()}


def test_large_answers_leave_the_window_open(world: World, client: httpx.Client) -> None:
    world.add("m1", http2(lambda served: served.answer(body=b"x" * 16_000)), services=SERVICES)
    for _ in range(10):  # of one connection, whose window holds 64 KiB
        assert len(client.get("/").content) == 16_000
    assert world.connects == ["m1"]


def test_a_program_that_speaks_http_1_only_is_502(world: World, client: httpx.Client) -> None:
    world.add("m1", mirror(), services=SERVICES)
    answer = client.get("/")
    assert answer.status_code == 502
    assert "[PU02] machine m1 did not answer" in answer.text


@pytest.mark.parametrize("code", [h2.errors.ErrorCodes.INTERNAL_ERROR, None])
def test_a_request_that_the_program_ends_is_502(
    world: World, client: httpx.Client, code: h2.errors.ErrorCodes | None
) -> None:
    def handle(served: Served) -> None:
        if code is None:
            served.http.close_connection()
        else:
            served.http.reset_stream(served.stream, code)

    world.add("m1", http2(handle), services=SERVICES)
    assert client.post("/", content=b"x").status_code == 502


def test_a_request_is_replayed_from_http_2(world: World, client: httpx.Client) -> None:
    world.add("m1", http2(lambda served: served.answer(fly_replay="instance=t")), services=SERVICES)
    world.add("t", mirror("t"), region="fra")
    assert client.post("/", content=b"body").json()["body"] == "body"


def test_an_upload_that_is_answered_early_ends(world: World, client: httpx.Client) -> None:
    async def program(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        http.initiate_connection()
        while data := await reader.read(65536):
            for event in http.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    http.send_headers(event.stream_id, [(":status", "413")], end_stream=True)
            writer.write(http.data_to_send())

    world.add("m1", program, services=SERVICES)
    for _ in range(2):
        assert client.post("/", content=b"x" * 500_000).status_code == 413


def cut_off(at: int) -> Program:
    """Ends the connection after so many bytes of its answer."""

    async def program(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        http.initiate_connection()
        while data := await reader.read(65536):
            for event in http.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    http.send_headers(event.stream_id, [(":status", "200")])
                    http.send_data(event.stream_id, b"x" * 1000)
                    writer.write(http.data_to_send()[:at])
                    return
            writer.write(http.data_to_send())

    return program


@pytest.mark.parametrize("at", [0, 5, 20, 200])
def test_an_answer_that_breaks_off_is_not_taken_for_whole(
    world: World, client: httpx.Client, at: int
) -> None:
    world.add("m1", cut_off(at), services=SERVICES)
    # a reset may overtake what came before it, and then nothing was answered
    with pytest.raises((httpx.HTTPStatusError, httpx.RemoteProtocolError)):
        client.post("/", content=b"x").raise_for_status()


def test_a_visitor_who_leaves_takes_the_request_with_him(world: World) -> None:
    entered, left = threading.Event(), threading.Event()

    async def program(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.read(65536):
                entered.set()
        finally:
            left.set()

    world.add("m1", program, services=SERVICES)
    with socket.create_connection(world.front, timeout=60) as visitor:
        head = b"POST / HTTP/1.1\r\nHost: web.fly.dev\r\nContent-Length: 900000\r\n\r\n"
        visitor.sendall(head + b"x" * 100_000)
        assert entered.wait(60)
    assert left.wait(60)


def test_an_idle_connection_that_the_program_ended_is_replaced(
    world: World, client: httpx.Client
) -> None:
    def handle(served: Served) -> None:
        served.answer(body=b"ok")
        served.http.close_connection()

    world.add("m1", http2(handle), services=SERVICES)
    assert [client.get("/").text for _ in range(3)] == ["ok"] * 3
