"""What may not be written is refused, and the message says where it stands, not what it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_flymachines._http import Http, ReadError, Request, Response, Transport
from pytest_flymachines.cassettes import CassetteKey, Recorder, Scrubber
from pytest_flymachines.errors import CassetteError
from pytest_flymachines.spec import SandboxSpec
from tests.cassettes.spellings import SPELLINGS
from tests.cassettes.test_planted_anywhere import FILL, M, ask, frames, says

SECRET = "fo1_pl4nted-s3cret+value"
RAW = SECRET.encode()
TEST = CassetteKey.test("test_a.py::test_x")


def header_of_the_request(recorder: Recorder) -> None:
    ask(recorder, says(), "GET", f"{M}/x", headers={"accept": f"text/{SECRET}"})


class Late(Transport):
    """Breaks off with an error that tells too much."""

    def handle_request(self, request: Request) -> Response:
        raise ReadError(f"lost {SECRET}", request=request)


def error(recorder: Recorder) -> None:
    with pytest.raises(Exception, match="lost"):
        ask(recorder, Late(), "GET", f"{M}/x")


PLACES: dict[str, tuple[Callable[[Recorder], None], str]] = {
    "URL": (lambda r: ask(r, says(), "GET", f"{M}/{SECRET}"), "request 1, URL"),
    "header of the request": (header_of_the_request, "request 1, headers"),
    "header of the answer": (
        lambda r: ask(r, says(location=f"/{SECRET}"), "GET", f"{M}/x"),
        "answer 1, headers",
    ),
    "body": (lambda r: ask(r, says(), "PUT", f"{M}/x", content=RAW), "request 1, body"),
    "body of the answer": (lambda r: ask(r, says(RAW), "GET", f"{M}/x"), "answer 1, body"),
    "large body": (lambda r: ask(r, says(FILL + RAW), "GET", f"{M}/x"), "answer 1, body"),
    "large body that is sent": (
        lambda r: ask(r, says(), "PUT", f"{M}/x", content=FILL + RAW),
        "request 1, body",
    ),
    "name in JSON": (
        lambda r: ask(r, says(json.dumps({SECRET: 1}).encode()), "GET", f"{M}/x"),
        "answer 1, body",
    ),
    "frame": (lambda r: frames(r, RAW), "answer 1, body"),
    "error": (error, "answer 1, status"),
}


@pytest.mark.parametrize("place", PLACES)
def test_the_message_says_where_and_not_what(tmp_path: Path, place: str) -> None:
    scrubber = Scrubber(environ={"FLY_API_TOKEN": SECRET})
    recorder = Recorder(tmp_path / "cassettes", mode="all", scrubber=scrubber)
    plant, where = PLACES[place]
    plant(recorder)
    # what could not be taken out
    scrubber.data = lambda data, depth=4: data  # type: ignore[method-assign]
    scrubber.text = lambda text: text  # type: ignore[method-assign]
    with pytest.raises(CassetteError) as refused:
        recorder.finish(TEST, passed=True)
    assert f"FLY_API_TOKEN in {where}" in str(refused.value)
    assert SECRET not in str(refused.value)
    assert not (tmp_path / "cassettes").exists()


@pytest.mark.parametrize("side", ["request", "answer"])
def test_what_can_be_found_only_in_the_text_that_json_means_is_refused(
    tmp_path: Path, side: str
) -> None:
    planted = SPELLINGS["uuencoded"](RAW).decode()
    scrubber = Scrubber(environ={"FLY_API_TOKEN": SECRET})
    recorder = Recorder(tmp_path / "cassettes", mode="all", scrubber=scrubber)
    said = {"command": ["cat", planted]}
    if side == "request":
        ask(recorder, says(), "POST", f"{M}/exec", json=said)
    else:
        ask(recorder, says(json.dumps(said).encode()), "GET", f"{M}/x")
    with pytest.raises(CassetteError, match=f"FLY_API_TOKEN in {side} 1, body"):
        recorder.finish(TEST, passed=True)
    assert not (tmp_path / "cassettes").exists()


@pytest.mark.parametrize(
    "name",
    [f"test_a.py::test_x[{SECRET}]", f"test_{SECRET}.py::test_x", f"a/{SECRET}/test_a.py::test_x"],
)
def test_a_secret_in_the_name_of_a_test_makes_no_file_or_directory(
    tmp_path: Path, name: str
) -> None:
    scrubber = Scrubber(environ={"FLY_API_TOKEN": SECRET})
    recorder = Recorder(tmp_path / "cassettes", mode="all", scrubber=scrubber)
    key = CassetteKey.test(name)
    with recorder.use(key):
        Http(recorder.transport(says(FILL)), "https://x").request("GET", f"{M}/x")
    with pytest.raises(CassetteError) as refused:
        recorder.finish(key, passed=True)
    told = str(refused.value)
    assert "FLY_API_TOKEN in the name of the test" in told
    assert "pytest.param(value, id='token')" in told
    assert "test_x" in told
    assert SECRET not in told
    assert "pl4nted" not in told
    assert not (tmp_path / "cassettes").exists()


def test_a_secret_in_the_name_of_a_fixture_or_its_parameter_is_refused(tmp_path: Path) -> None:
    scrubber = Scrubber(environ={"FLY_API_TOKEN": SECRET})
    recorder = Recorder(tmp_path / "cassettes", mode="all", scrubber=scrubber)
    key = CassetteKey.fixture("session", "server", param=SECRET)
    with recorder.use(key):
        Http(recorder.transport(says()), "https://x").request("GET", f"{M}/x")
    with pytest.raises(CassetteError, match=r"FLY_API_TOKEN in recording\.fixture") as refused:
        recorder.finish(key, passed=True)
    assert SECRET not in str(refused.value)
    assert not (tmp_path / "cassettes").exists()


def test_a_secret_in_the_image_of_a_spec_makes_no_file(tmp_path: Path) -> None:
    scrubber = Scrubber(environ={"FLY_API_TOKEN": SECRET})
    recorder = Recorder(tmp_path / "cassettes", mode="all", scrubber=scrubber)
    spec = SandboxSpec(image=f"registry.example/{SECRET}:1")
    with recorder.provisioning(spec):
        Http(recorder.transport(says()), "https://x").request("GET", f"{M}/x")
    with pytest.raises(CassetteError) as refused:
        recorder.finish(CassetteKey.sandbox(spec), passed=True)
    assert SECRET not in str(refused.value)
    assert not (tmp_path / "cassettes").exists()
