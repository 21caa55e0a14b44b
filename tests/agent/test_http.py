"""The agent's HTTP: authentication, framing, digests, compression, bad requests."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from pytest_flymachines.agent.server import messages
from tests.agent.running import PREFIX, TOKEN, RunningAgent, eventually, running_agent


@pytest.fixture
def http(agent: RunningAgent) -> Iterator[httpx.Client]:
    with agent.http() as client:
        yield client


def raw(agent: RunningAgent, request: bytes) -> bytes:
    """Send bytes and read to the end of the connection."""
    with agent.connect() as sock:
        sock.sendall(request)
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := sock.recv(65536):
            answer += piece
    return answer


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x"],
)
@pytest.mark.parametrize("path", ["/exec", "/agent/health", "/agent/nothing", "/../x"])
def test_no_request_passes_without_the_token(
    agent: RunningAgent, authorization: str | None, path: str
) -> None:
    headers = {} if authorization is None else {"authorization": authorization}
    answer = httpx.post(agent.url + PREFIX + path, headers=headers, json={"command": ["true"]})
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert answer.json() == {"error": "the bearer token is missing or wrong"}


def test_the_scheme_is_case_insensitive(agent: RunningAgent) -> None:
    headers = {"authorization": f"bEARER {TOKEN}"}
    assert httpx.get(f"{agent.url}{PREFIX}/agent/health", headers=headers).status_code == 200


def test_health_says_what_it_is(http: httpx.Client, agent: RunningAgent) -> None:
    body = http.get("/agent/health").json()
    assert list(body) == ["name", "version", "pid", "base", "capabilities"]
    assert (body["pid"], body["base"]) == (agent.process.pid, str(agent.base))
    assert "exec" in body["capabilities"]


def test_the_log_is_served(http: httpx.Client, agent: RunningAgent) -> None:
    assert http.get("/agent/log").json()["log"][0] == f"listening on 127.0.0.1:{agent.port}"


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/exec"), ("POST", "/agent/health"), ("GET", "/agent"), ("PUT", "/agent/files/stat")],
)
def test_unknown_paths_are_404_in_json(http: httpx.Client, method: str, path: str) -> None:
    answer = http.request(method, path)
    assert answer.status_code == 404
    assert f"{method} {PREFIX}{path}" in answer.json()["error"]


def test_answers_are_the_same_each_time(http: httpx.Client, agent: RunningAgent) -> None:
    (agent.base / "f").write_text("é")
    body = {"path": "f"}
    answers = [http.post("/agent/files/stat", json=body) for _ in range(3)]
    assert len({answer.content for answer in answers}) == 1
    assert len({str(answer.headers) for answer in answers}) == 1
    answer = http.post("/exec", json={"command": ["echo", "é"], "wait_s": 20})
    assert '"stdout": "é\\n"' in answer.text


def test_one_connection_carries_many_requests(agent: RunningAgent) -> None:
    head = f"GET {PREFIX}/agent/health HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\n"
    pipelined = (head + "\r\n") * 3 + head + "connection: close\r\n\r\n"
    assert raw(agent, pipelined.encode()).count(b"HTTP/1.1 200") == 4


def test_a_body_may_come_in_chunks(http: httpx.Client, agent: RunningAgent) -> None:
    answer = http.put("/agent/files?path=chunked", content=iter([b"a" * 70_000, b"", b"b"]))
    assert answer.json() == {"size": 70_001}
    assert (agent.base / "chunked").read_bytes() == b"a" * 70_000 + b"b"


def test_a_long_answer_comes_in_chunks_with_its_digest_at_the_end(
    http: httpx.Client, agent: RunningAgent
) -> None:
    data = os.urandom(3 << 20)
    (agent.base / "long").write_bytes(data)
    answer = http.post("/agent/files/read", json={"path": "long"})
    assert answer.headers["transfer-encoding"] == "chunked"
    assert answer.headers["x-content-sha256"] == "tail"
    assert answer.content == data + hashlib.sha256(data).hexdigest().encode()


def test_a_short_answer_has_its_digest_in_the_header(
    http: httpx.Client, agent: RunningAgent
) -> None:
    (agent.base / "short").write_bytes(b"short")
    answer = http.post("/agent/files/read", json={"path": "short"})
    assert answer.content == b"short"
    assert answer.headers["x-content-sha256"] == hashlib.sha256(b"short").hexdigest()


def test_a_client_that_waits_for_100_is_told_to_go_on(agent: RunningAgent) -> None:
    head = (
        f"PUT {PREFIX}/agent/files?path=expected HTTP/1.1\r\nhost: x\r\n"
        f"authorization: Bearer {TOKEN}\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n"
    )
    with agent.connect() as sock:
        sock.sendall(head.encode())
        assert sock.recv(1000).startswith(b"HTTP/1.1 100")
        sock.sendall(b"abc")
        assert sock.recv(1000).startswith(b"HTTP/1.1 200")
    assert (agent.base / "expected").read_bytes() == b"abc"


def test_a_damaged_body_changes_nothing(http: httpx.Client, agent: RunningAgent) -> None:
    (agent.base / "whole").write_bytes(b"old")
    headers = {"x-content-sha256": hashlib.sha256(b"something else").hexdigest()}
    for path in ("/agent/files?path=whole", "/agent/trees?path=tree"):
        answer = http.put(path, content=b"x" * 20480, headers=headers)
        assert answer.status_code == 400
    assert "SHA-256" in http.put("/agent/files?path=whole", headers=headers).json()["error"]
    headers["x-content-sha256"] = "nonsense"
    assert http.post("/agent/files/append?path=whole", headers=headers).status_code == 400
    headers["x-content-sha256"] = "tail"
    for body in (
        b"",
        b"short",
        b"x" * 20480,
        b"x" * 1000 + hashlib.sha256(b"y").hexdigest().encode(),
    ):
        answer = http.put("/agent/files?path=whole", content=body, headers=headers)
        assert answer.status_code == 400
        assert "SHA-256" in answer.json()["error"]
    assert (agent.base / "whole").read_bytes() == b"old"
    assert not (agent.base / "tree").exists()


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 300_000])
@pytest.mark.parametrize("cut", [1, 64, 100, 65_536])
def test_a_digest_may_come_last_in_pieces_of_any_size(
    http: httpx.Client, agent: RunningAgent, size: int, cut: int
) -> None:
    data = os.urandom(size)
    body = data + hashlib.sha256(data).hexdigest().encode()
    ends = sorted({*range(len(body), 0, -cut)[:40], 0})
    pieces = iter([body[a:b] for a, b in itertools.pairwise(ends)])
    headers = {"x-content-sha256": "tail"}
    answer = http.put("/agent/files?path=last", content=pieces, headers=headers)
    assert answer.json() == {"size": size}
    assert (agent.base / "last").read_bytes() == data


def test_bodies_are_compressed_where_it_pays(http: httpx.Client, agent: RunningAgent) -> None:
    text = b"the same again and again. " * 100_000
    answer = http.put(
        "/agent/files?path=zipped",
        content=gzip.compress(text),
        headers={"content-encoding": "gzip"},
    )
    assert answer.json() == {"size": len(text)}
    read = http.post("/agent/files/read", json={"path": "zipped"})
    assert read.headers["content-encoding"] == "gzip"
    assert read.content == text + hashlib.sha256(text).hexdigest().encode()
    body = {"path": "zipped", "size": 100_000}
    assert http.post("/agent/files/read", json=body).content == text[:100_000]
    plain = http.post("/agent/files/read", json=body, headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    (agent.base / "noise").write_bytes(os.urandom(100_000))
    noise = http.post("/agent/files/read", json={"path": "noise"})
    assert "content-encoding" not in noise.headers


@pytest.mark.parametrize(
    ("encoding", "body", "words"),
    [
        ("gzip", b"no gzip at all", "no gzip"),
        ("gzip", gzip.compress(bytes(10_000), mtime=0)[:-12], "cut off"),
        ("br", b"x", "expected gzip or identity"),
    ],
)
def test_bad_encodings_are_told(
    http: httpx.Client, agent: RunningAgent, encoding: str, body: bytes, words: str
) -> None:
    headers = {"content-encoding": encoding}
    answer = http.put("/agent/files?path=bad", content=body, headers=headers)
    assert answer.status_code == 400
    assert words in answer.json()["error"]
    assert not (agent.base / "bad").exists()


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: x\r\nx: " + b"y" * 400_000 + b"\r\n\r\n", 431),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    ],
    ids=["text", "no host", "long head", "bad length", "TLS"],
)
def test_what_is_no_http_is_refused(agent: RunningAgent, request_line: bytes, status: int) -> None:
    assert raw(agent, request_line + b"\r\n\r\n").startswith(b"HTTP/1.1 %d" % status)


@pytest.mark.parametrize("body", ["[]", "3", "{", '"text"', "nul"])
def test_a_body_that_is_no_json_object_is_told(http: httpx.Client, body: str) -> None:
    answer = http.post("/exec", content=body)
    assert answer.status_code == 400
    assert "body" in answer.json()["error"]


def test_a_body_that_is_too_large_is_refused(http: httpx.Client) -> None:
    answer = http.post("/exec", content=(b" " * (1 << 20) for _ in range(70)))
    assert answer.status_code == 400
    assert str(messages.MAX_BODY_BYTES) in answer.json()["error"]


def test_an_answer_comes_before_a_body_that_is_not_wanted(agent: RunningAgent) -> None:
    with httpx.Client(timeout=30) as client:
        answer = client.put(
            f"{agent.url}{PREFIX}/agent/files?path=x", content=(bytes(1 << 20) for _ in range(30))
        )
    assert answer.status_code == 401


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("files/read", {"path": "x", "offset": -1}, "offset=-1"),
        ("files/read", {"path": 5}, "path=5"),
        ("files/read", {}, "path=None"),
        ("files/chmod", {"path": ".", "mode": 0o10000}, "mode=4096"),
        ("files/chmod", {"path": ".", "mode": "755"}, "mode='755'"),
        ("files/walk", {"path": ".", "patterns": ["a/b"]}, "patterns=['a/b']"),
        ("files/walk", {"path": ".", "patterns": []}, "patterns=[]"),
        ("files/stat", {"path": "a\0b"}, "NUL"),
        ("files/stat", {"path": {"base64": "!"}}, "base64"),
        ("trees/get", {"path": ".", "exclude": [1]}, "exclude=[1]"),
        ("checkpoints", {"name": 7}, "name=7"),
    ],
)
def test_fields_that_make_no_sense_are_told(
    http: httpx.Client, path: str, body: dict[str, Any], words: str
) -> None:
    answer = http.post(f"/agent/{path}", json=body)
    assert answer.status_code == 400
    assert words in answer.json()["error"]


def test_parameters_that_make_no_sense_are_told(http: httpx.Client) -> None:
    assert "mode" in http.put("/agent/files?path=x&mode=rw").json()["error"]
    assert "hex digits" in http.put("/agent/files?path=%zz").json()["error"]


def test_a_failed_system_call_has_errno_and_path(http: httpx.Client, agent: RunningAgent) -> None:
    answer = http.post("/agent/files/stat", json={"path": {"base64": "bm//bmU="}})
    assert answer.status_code == 404
    assert answer.json()["errno"] == 2
    assert json.dumps(answer.json()["path"]).startswith('{"base64":')
    answer = http.post("/agent/files/mkdir", json={"path": "."})
    assert (answer.status_code, answer.json()["errno"]) == (409, 17)


def test_ipv6_and_several_addresses(tmp_path: Path) -> None:
    options = ["--listen", "[::1]:0", "-listen", "127.9.8.7:0"]
    with running_agent(tmp_path, options=options) as agent:
        eventually(lambda: agent.log().count("listening on") == 3)
        ports = [line.rpartition(":") for line in agent.log().splitlines()[:3]]
        hosts = [host.removeprefix("listening on ") for host, _, _ in ports]
        assert hosts == ["127.0.0.1", "[::1]", "127.9.8.7"]
        for host, (_, _, port) in zip(hosts, ports, strict=True):
            url = f"http://{host}:{port}{PREFIX}/agent/health"
            assert httpx.get(url, headers=agent.headers).status_code == 200


@pytest.mark.parametrize("time", ["", "x", "1.5", "--1", "9" * 19, "1" * 40])
def test_a_time_that_is_none_is_refused(agent: RunningAgent, http: httpx.Client, time: str) -> None:
    answer = http.put(f"/agent/files?path=timed&mtime_ns={time}", content=b"x")
    assert (answer.status_code, (agent.base / "timed").exists()) == (400, False)
    assert "expected nanoseconds since 1970" in answer.json()["error"]
