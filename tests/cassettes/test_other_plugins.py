"""Other recorders and mocks in the same run neither see our traffic nor we theirs."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
import vcr

from pytest_flymachines._http import Http, Request, Response, Transport
from pytest_flymachines.cassettes import CassetteKey, Recorder, Scrubber
from tests.cassettes.machine import Server
from tests.cassettes.project import Project

SUITE = """
import os

import httpx
import pytest
import requests
import respx
import vcr

USERS = "http://user.example"


def own(box, word):
    assert box.exec(f"echo {word}") == word + "\\n"


@pytest.mark.vcr
def test_pytest_recording(box):
    own(box, "one")
    url = os.environ.get("FLY_TEST_USERS") or "http://127.0.0.1:1"
    theirs = requests.get(url + "/v1/apps/a/machines/m1/agent/file?path=user", timeout=60)
    assert theirs.text == "hi"
    assert httpx.get(url + "/v1/apps/a/machines/m1/agent/file?path=user").text == "hi"
    own(box, "two")


def test_vcrpy(box, tmp_path):
    with vcr.VCR(record_mode="none").use_cassette(str(tmp_path / "none.yaml")) as tape:
        own(box, "three")
        with pytest.raises(vcr.errors.CannotOverwriteExistingCassetteException):
            httpx.get(USERS)
    assert len(tape) == 0


@respx.mock
def test_respx(box):
    route = respx.get(USERS).mock(return_value=httpx.Response(200, text="mocked"))
    own(box, "four")
    assert httpx.get(USERS).text == "mocked"
    assert route.call_count == 1
    assert len(respx.calls) == 1


def test_pytest_httpx(box, httpx_mock):
    httpx_mock.add_response(url=USERS, text="mocked")
    own(box, "five")
    assert httpx.get(USERS).text == "mocked"
    assert len(httpx_mock.get_requests()) == 1


@pytest.mark.asyncio_like
def test_all_at_once(box, httpx_mock, respx_mock):
    httpx_mock.add_response(url=USERS, text="mocked")
    own(box, "six")
    httpx.get(USERS)


def test_after_them(box):
    own(box, "seven")
"""


@pytest.mark.parametrize("workers", [[], ["-n", "2"]])
def test_our_requests_and_the_users_stay_apart(
    project: Project, machine: Server, workers: list[str]
) -> None:
    (machine.directory / "user").write_bytes(b"hi")
    (project.path / "test_a.py").write_text(SUITE.replace("@pytest.mark.asyncio_like\n", ""))
    plugins = ["-p", "pytest_recording.plugin", "-p", "respx.plugin", "-p", "pytest_httpx"]
    ask = [*plugins, *workers]
    result = project.record(*ask, "--record-mode=once", FLY_TEST_USERS=machine.url)
    result.assert_outcomes(passed=6)
    users = project.cassette("test_a/test_pytest_recording.yaml").read_text()
    assert users.count("- request:") == 2
    assert "exec" not in users
    ours = project.cassette("test_a.py/test_pytest_recording.yaml").read_text()
    assert ours.count("- request:") == 2
    assert "path=user" not in ours
    asked = len(machine.seen)
    project.replay(*ask, "--record-mode=none", FLY_TEST_USERS=machine.url).assert_outcomes(passed=6)
    assert len(machine.seen) == asked


def test_pytest_recordings_network_block_holds_for_machines_and_not_for_replay(
    project: Project,
) -> None:
    (project.path / "test_a.py").write_text(
        "import pytest\n"
        "def test_free(box):\n"
        "    box.exec('echo free')\n"
        "@pytest.mark.block_network\n"
        "def test_blocked(box):\n"
        "    box.http.request('GET', '/v1/apps/a/machines')\n"
    )
    ask = ["-p", "pytest_recording.plugin"]
    project.record().assert_outcomes(passed=2)
    project.replay(*ask).assert_outcomes(passed=2)


def test_pytest_recording_replays_our_files(project: Project) -> None:
    (project.path / "test_a.py").write_text("def test_x(box):\n    box.exec('echo one')\n")
    project.record().assert_outcomes(passed=1)
    text = project.cassette("test_a.py/test_x.yaml").read_text()
    uri = next(line.split()[1] for line in text.splitlines() if line.strip().startswith("uri:"))
    (project.path / "test_a.py").write_text(
        "import pytest, httpx\n"
        "@pytest.fixture(scope='module')\n"
        "def vcr_cassette_dir():\n"
        "    return 'cassettes/test_a.py'\n"
        "@pytest.mark.vcr\n"
        "def test_x():\n"
        f"    answer = httpx.post('{uri}', json={{}})\n"
        "    assert answer.json()['stdout'] == 'one\\n'\n"
    )
    ask = ["-p", "pytest_recording.plugin"]
    project.replay(*ask, FLY_TEST_UNUSED="ignore").assert_outcomes(passed=1)


@pytest.mark.parametrize("ask", [httpx.request, requests.request])
def test_plain_vcrpy_reads_every_file(tmp_path: Path, ask: Any) -> None:
    """JSON is laid out, binary bodies are what they were, and a large one is told by its digest."""
    url = "https://api.machines.dev/v1/apps/a/machines"
    bodies = {"json": b'{"a":[1,{"b":"\\u00fc"}]}', "text": b"some\ntext\n", "none": b""}
    bodies |= {"binary": bytes(range(256)), "large": b"x" * 300_000}
    key = CassetteKey.test("test_a.py::test_x")
    recorder = Recorder(tmp_path, mode="all", source="local", scrubber=Scrubber(environ={}))

    class Answers(Transport):
        def handle_request(self, request: Request) -> Response:
            return Response(200, content=bodies[request.url.path.rpartition("/")[2]])

    with recorder.use(key):
        http = Http(recorder.transport(Answers()), "http://127.0.0.1:1")
        for name in bodies:
            http.request("GET", f"/v1/apps/a/machines/{name}")
    recorder.finish(key, passed=True)
    with vcr.use_cassette(str(tmp_path / key.path), record_mode="none") as tape:
        got = {name: ask("GET", f"{url}/{name}").content for name in bodies}
    assert tape.play_count == len(tape) == len(bodies)
    assert json.loads(got["json"]) == json.loads(bodies["json"])
    assert [got[name] for name in ("text", "none", "binary")] == [
        bodies[name] for name in ("text", "none", "binary")
    ]
    digest = hashlib.sha256(bodies["large"]).hexdigest()
    assert got["large"] == b"blob sha256:%b (300000 bytes)" % digest.encode()
    assert gzip.decompress((tmp_path / "blobs" / digest).read_bytes()) == bodies["large"]
