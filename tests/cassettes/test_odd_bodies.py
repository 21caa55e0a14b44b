"""Requests of any client pass the recorder, whatever their bodies are: the server answers them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pytest_flymachines._http import Client, Request, Response, Transport
from pytest_flymachines.cassettes import CassetteKey, Recorder, Scrubber
from pytest_flymachines.cassettes.volatile import RUNNER, RUNNER_SCRIPT

TEST = CassetteKey.test("tests/test_a.py::test_x")


class Server(Transport):
    """Answers every request with the same."""

    def __init__(self, status: int, content: bytes) -> None:
        self._answer = status, content

    def handle_request(self, request: Request) -> Response:
        request.read()
        status, content = self._answer
        return Response(status, content=content, request=request)


def to_runner(word: str) -> dict[str, Any]:
    command = ["x"] * (RUNNER_SCRIPT + 1)
    command[2], command[RUNNER_SCRIPT] = f"{RUNNER} _fly env -- ", word
    return {"command": command}


#: Each a value, or the bytes of a body.
BODIES: dict[str, Any] = {
    "no base64": {"env": {"A_TOKEN": {"base64": "%"}}},
    "base64 cut": {"env": {"A_TOKEN": {"base64": "abcde"}}},
    "base64 with more than ASCII": {"env": {"A_TOKEN": {"base64": "\u00fc"}}},
    "a number": {"env": {"A_TOKEN": 5}},
    "a list": {"env": [{"env": {"A_TOKEN": None}}]},
    "a short value": {"env": {"A_TOKEN": "a"}},
    "not packed": to_runner("z!!"),
    "packed, not gzip": to_runner("zYWJj"),
    "not in base64": to_runner("babcde"),
    "half a letter": to_runner("t\ud800"),
    **{
        f"{depth} deep": b'{"env": ' + b"[" * depth + b"]" * depth + b"}"
        for depth in (190, 300, 900, 100_000)
    },
    "half an object": b'{"env": {"A_TOKEN": "',
    "not UTF-8": b'{"env": {"A_TOKEN": "\xff\xfe0123456789"}}',
    "great numbers": b'{"env": {"A_TOKEN": 1' + b"0" * 5000 + b"}}",
}


def ask(directory: Path, mode: Any, content: bytes, status: int, answer: bytes) -> Response:
    recorder = Recorder(directory, mode=mode, source="local", scrubber=Scrubber(environ={}))
    inner = None if mode == "replay" else Server(status, answer)
    client = Client(transport=recorder.transport(inner), base_url="http://127.0.0.1:1")
    with recorder.use(TEST):
        response = client.post("/v1/apps/a/machines", content=content)
    recorder.finish(TEST, passed=True)
    return response


@pytest.mark.parametrize("name", BODIES)
def test_the_servers_answer_arrives_and_replays(tmp_path: Path, name: str) -> None:
    body = BODIES[name]
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    for mode in ("all", "replay"):
        response = ask(tmp_path, mode, content, 400, b'{"error": "no"}')
        assert (response.status_code, response.content) == (400, b'{"error": "no"}')


@pytest.mark.parametrize("name", [name for name, body in BODIES.items() if type(body) is bytes])
def test_an_odd_answer_replays_byte_for_byte(tmp_path: Path, name: str) -> None:
    for mode in ("all", "replay"):
        assert ask(tmp_path, mode, b"{}", 200, BODIES[name]).content == BODIES[name]
