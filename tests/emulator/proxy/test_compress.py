from __future__ import annotations

import zlib

import httpx
import pytest

from pytest_flymachines.emulator.proxy.compress import accepted
from tests.emulator.fidelity import shows
from tests.emulator.proxy.programs import http, raw, says
from tests.emulator.proxy.world import HTTP, World, service

TEXT = "line of text\n" * 100


@shows("proxy", "text is compressed for visitors who accept gzip or deflate", "docs")
@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_text_is_compressed(world: World, client: httpx.Client, coding: str) -> None:
    world.add("m1", says(TEXT, Content_Type="text/plain", ETag='"x"'))
    with client.stream("GET", "/", headers={"Accept-Encoding": coding}) as answer:
        packed = b"".join(answer.iter_raw())
    assert answer.headers["content-encoding"] == coding
    assert answer.headers["vary"] == "Accept-Encoding"
    assert answer.headers["etag"] == 'W/"x"'
    assert "content-length" not in answer.headers
    assert zlib.decompress(packed, wbits=32 + zlib.MAX_WBITS).decode() == TEXT
    assert len(packed) < len(TEXT) / 10


@pytest.mark.parametrize("port", [80, 443])
def test_it_works_over_both_versions(world: World, port: int) -> None:
    world.add("m1", says(TEXT, Content_Type="application/json"))
    url = "http{}://{}:{}/".format("s" * (port == 443), *world.address(port))
    with httpx.Client(http2=True, verify=False, trust_env=False) as client:
        answer = client.get(url)
        assert (answer.headers["content-encoding"], answer.text) == ("gzip", TEXT)
        assert client.head(url).headers["content-length"] == str(len(TEXT))


@shows("proxy", "`http_options.compress: false`, and a `Content-Encoding`, prevent that", "docs")
@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain", "Content-Encoding": "none"},
        {"Content-Type": "text/plain", "Cache-Control": "public, no-transform"},
        {"Content-Type": "text/event-stream"},
        {"Content-Type": "image/png"},
        {"Content-Type": "application/grpc+json"},
        {},
    ],
)
def test_other_answers_pass_as_they_are(
    world: World, client: httpx.Client, headers: dict[str, str]
) -> None:
    world.add("m1", http(lambda _: (200, dict(headers), TEXT.encode())))
    answer = client.get("/")
    assert answer.text == TEXT
    assert answer.headers["content-length"] == str(len(TEXT))


def test_it_can_be_switched_off(world: World, client: httpx.Client) -> None:
    port = HTTP | {"http_options": {"compress": False}}
    world.add("m1", says(TEXT, Content_Type="text/plain"), services=[service(port)])
    answer = client.get("/")
    assert (answer.text, "content-encoding" in answer.headers) == (TEXT, False)


@pytest.mark.parametrize("status", [204, 304])
def test_answers_without_a_body_stay_so(world: World, client: httpx.Client, status: int) -> None:
    head = f"HTTP/1.1 {status} X\r\nContent-Type: text/plain\r\n\r\n".encode()
    world.add("m1", raw(head))
    answer = client.get("/")
    assert (answer.status_code, answer.content) == (status, b"")
    assert "content-encoding" not in answer.headers


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        ("", ""),
        ("br, zstd", ""),
        ("gzip;q=0", ""),
        ("deflate, gzip", "gzip"),
        ("gzip;q=0.5, deflate", "deflate"),
        ("*", "gzip"),
        ("*;q=0.1, gzip;q=0", "deflate"),
        ("gzip;q=high", ""),
    ],
)
def test_the_best_of_the_accepted_codings_is_taken(header: str, coding: str) -> None:
    assert accepted(header) == coding
