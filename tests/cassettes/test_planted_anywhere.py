"""A secret that is planted in any part of the traffic, whatever makes it."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, quote_from_bytes

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from pytest_flymachines._http import ConnectError, Http, Request, Response, Transport
from pytest_flymachines.cassettes import CassetteKey, Recorder, Scrubber
from pytest_flymachines.errors import CassetteError
from pytest_flymachines.spec import SandboxSpec
from tests.cassettes.spellings import SPELLINGS
from tests.cassettes.views import is_telling, parts_of, recorded

TEST = CassetteKey.test("test_a.py::test_x")
M = "/v1/apps/app/machines/m"
EXAMPLES = int(os.environ.get("PLANTED_EXAMPLES", "5")) * 8
MARK = b"in front of it "
FILL = b". " * 140_000

SECRETS = st.text(
    "abcdefghijkXYZ0123456789+/=_-&%!$ '\"\\<>;#\u00e9\U0001f511", min_size=24
).filter(lambda text: is_telling(text) and len(text) < 80)


class Answer(Transport):
    """Answers as it is told to."""

    def __init__(self, answer: Callable[[Request], Response]) -> None:
        self._answer = answer

    def handle_request(self, request: Request) -> Response:
        return self._answer(request)


def says(content: bytes = b"{}", **headers: str) -> Transport:
    named = [(k.replace("_", "-").encode(), value.encode()) for k, value in headers.items()]
    return Answer(lambda _: Response(200, headers=named, content=content))


def text_of(data: bytes) -> str:
    return data.decode("utf-8", "replace").replace("\0", " ")


Plant = Callable[[Recorder, bytes], object]


def ask(recorder: Recorder, transport: Transport, method: str, path: str, **more: object) -> None:
    with recorder.use(TEST):
        http = Http(recorder.transport(transport), "https://x")
        http.request(method, path, **more)  # type: ignore[arg-type]


def fails(recorder: Recorder, data: bytes) -> None:
    def refuse(request: Request) -> Response:
        raise ConnectError(f"no way to {text_of(data)}", request=request)

    with pytest.raises(Exception, match="no way"):
        ask(recorder, Answer(refuse), "GET", f"{M}/x")


def frames(recorder: Recorder, data: bytes) -> None:
    class Socket:
        def send(self, text: str) -> None:
            pass

        def receive(self, timeout_s: float) -> str:
            return json.dumps({"type": "output", "out": text_of(data)})

        def close(self) -> None:
            pass

    with recorder.use(TEST):
        socket = recorder.frames(f"/terminal?name={quote_from_bytes(data)}", Socket)
        socket.send(json.dumps({"type": "input", "in": text_of(data)}))
        socket.receive(1)


def spec(recorder: Recorder, data: bytes) -> None:
    text = text_of(data)
    made = SandboxSpec(
        image="debian:12",
        repo=f"https://me:{quote(text, safe='')}@example.com/x",
        env={"LEVEL": text, "A_TOKEN": text},
        setup=(f"login {text}",),
    )
    with recorder.provisioning(made):
        http = Http(recorder.transport(says()), "https://x")
        http.request("POST", f"{M}/exec", json={"command": ["true"]})
    recorder.finish(CassetteKey.sandbox(made), passed=True)


def packed(recorder: Recorder, data: bytes) -> None:
    answer = says(gzip.compress(FILL + data), content_encoding="gzip")
    ask(recorder, answer, "GET", f"{M}/agent/file")


PLACES: dict[str, Plant] = {
    "query": lambda r, d: ask(r, says(), "GET", f"{M}/agent/file?path={quote_from_bytes(d)}"),
    "path": lambda r, d: ask(r, says(), "GET", f"{M}/metadata/{quote_from_bytes(d, safe='')}"),
    "JSON": lambda r, d: ask(r, says(), "POST", f"{M}/exec", json={"command": [text_of(d)]}),
    "name in JSON": lambda r, d: ask(r, says(), "POST", f"{M}/x", json={text_of(d): {}}),
    "env": lambda r, d: ask(r, says(), "POST", f"{M}/exec", json={"env": {"A": text_of(d)}}),
    "body": lambda r, d: ask(r, says(), "PUT", f"{M}/agent/file?path=a", content=MARK + d),
    "answer": lambda r, d: ask(r, says(MARK + d), "GET", f"{M}/agent/file?path=a"),
    "JSON in the answer": lambda r, d: ask(
        r, says(json.dumps({"stdout": text_of(d), text_of(d): 1}).encode()), "GET", f"{M}/x"
    ),
    "header of the answer": lambda r, d: ask(r, says(x_a=text_of(d)), "GET", f"{M}/x"),
    "large answer": lambda r, d: ask(r, says(FILL + d), "GET", f"{M}/agent/file?path=a"),
    "compressed answer": packed,
    "error": fails,
    "frames": frames,
    "spec": spec,
}


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="PLANTED_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    secret=SECRETS, spelling=st.sampled_from(list(SPELLINGS)), place=st.sampled_from(list(PLACES))
)
def test_not_half_of_a_secret_is_on_the_disk_or_the_save_is_refused(
    tmp_path: Path, secret: str, spelling: str, place: str
) -> None:
    planted = SPELLINGS[spelling](secret.encode())
    assume(b"\n" not in planted or place not in ("header of the answer", "error", "spec"))
    directory = tmp_path / "cassettes"
    shutil.rmtree(directory, ignore_errors=True)
    scrubber = Scrubber(environ={"FLY_API_TOKEN": secret})
    recorder = Recorder(directory, mode="all", scrubber=scrubber)
    raw = secret.encode()
    try:
        PLACES[place](recorder, planted)
        recorder.finish(TEST, passed=True)
    except CassetteError as error:
        refused = str(error)
    else:
        refused = ""
    if refused:
        assert "FLY_API_TOKEN" in refused or "credentials" in refused
        assert not parts_of(raw, refused.encode())
        assert not list(directory.rglob("*.yaml"))
        return
    for name, found in recorded(directory):
        assert not parts_of(raw, found), f"in {name}"
