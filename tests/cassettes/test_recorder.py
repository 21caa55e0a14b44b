"""What goes through a recorder is found again, without the server."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import stamina
import vcr
from httpx import StreamError
from vcr.cassette import Cassette

from pytest_flymachines._clock import ReplayClock
from pytest_flymachines._http import (
    Client,
    ConnectError,
    Http,
    PoolTransport,
    ReadTimeout,
    RemoteProtocolError,
    Request,
    Response,
    SyncByteStream,
    Transport,
)
from pytest_flymachines.api.stack import build_transport
from pytest_flymachines.cassettes import CassetteKey, CassetteMissing, Recorder, Scrubber
from pytest_flymachines.errors import CassetteError, CassetteMiss
from pytest_flymachines.spec import SandboxSpec
from tests.cassettes.machine import Server

TEST = CassetteKey.test("tests/test_a.py::test_x")
OTHER = CassetteKey.test("tests/test_a.py::test_y")
M = "/v1/apps/app/machines/d5683210c7968e"


class Rig:
    """Records from a server and replays, into one directory."""

    def __init__(self, directory: Path, server: Server) -> None:
        self.directory = directory
        self.server = server
        self.pool = PoolTransport()

    def recorder(self, mode: Any = "all", **more: Any) -> Recorder:
        more.setdefault("scrubber", Scrubber(environ={}))
        return Recorder(self.directory, mode=mode, source="local", **more)

    def http(self, recorder: Recorder, inner: Transport | None = None, **more: Any) -> Http:
        if inner is None and recorder.mode != "replay":
            inner = self.pool
        headers = {"Authorization": "Bearer t0psecret-t0psecret"}
        return Http(recorder.transport(inner, **more), self.server.url, headers)

    def file(self, key: CassetteKey = TEST) -> Path:
        return self.directory / key.path


@pytest.fixture
def rig(tmp_path: Path, machine: Server) -> Iterator[Rig]:
    rig = Rig(tmp_path / "cassettes", machine)
    yield rig
    rig.pool.close()


def sh(http: Http, command: str, **more: Any) -> dict[str, Any]:
    body = {"command": ["sh", "-c", command], **more}
    answer: dict[str, Any] = http.request("POST", f"{M}/exec", json=body).json()
    return answer


def test_recorded_answers_come_back_in_order_and_without_the_server(rig: Rig) -> None:
    recorder = rig.recorder()
    http = rig.http(recorder)
    with recorder.use(TEST):
        live = [sh(http, c) for c in ("echo $COUNT", "echo a", "echo $COUNT", "echo $COUNT")]
    recorder.finish(TEST, passed=True)
    asked = len(rig.server.seen)

    replayer = rig.recorder("replay")
    http = rig.http(replayer)
    with replayer.use(TEST):
        assert sh(http, "echo a") == live[1]
        assert [sh(http, "echo $COUNT") for _ in range(3)] == [live[0], live[2], live[3]]
        with pytest.raises(CassetteMiss, match="recorded 3 times, and asked for more often"):
            sh(http, "echo $COUNT")
    assert len(rig.server.seen) == asked


def test_bytes_streams_and_large_bodies_come_back_as_they_were(rig: Rig) -> None:
    blob = os.urandom(100_000)
    large = b"line of a large file\n" * 40_000

    def go(recorder: Recorder) -> list[bytes]:
        http = rig.http(recorder)
        with recorder.use(TEST):
            http.request("PUT", f"{M}/agent/file?path=a", content=iter([blob[:5], blob[5:]]))
            http.request("PUT", f"{M}/agent/file?path=b", content=large)
            with http.stream("GET", f"{M}/agent/file?path=a") as response:
                pieces = b"".join(response.iter_bytes(1000))
            return [pieces, http.request("GET", f"{M}/agent/file?path=b").content]

    recorder = rig.recorder()
    assert go(recorder) == [blob, large]
    recorder.finish(TEST, passed=True)
    assert go(rig.recorder("replay")) == [blob, large]
    text = rig.file().read_text()
    assert "!!binary" in text
    assert "line of a large file" not in text
    blobs = list((rig.directory / "blobs").iterdir())
    assert len(blobs) == 1, "the same body, sent and received, is kept once"
    assert blobs[0].stat().st_size < 10_000, "compressed"


def test_an_answer_reads_in_replay_as_answers_do(rig: Rig) -> None:
    body = {"command": ["printf", "0123456789"]}
    for mode in ("all", "replay"):
        recorder = rig.recorder(mode)
        pool = rig.pool if mode == "all" else None
        client = Client(transport=recorder.transport(pool), base_url=rig.server.url)
        with recorder.use(TEST):
            whole = client.post(f"{M}/exec", json=body)
            assert whole.read() == whole.content == b"".join(whole.iter_bytes(3))
            assert whole.num_bytes_downloaded == len(whole.content) > 10
            assert whole.json()["stdout"] == "0123456789"
            with client.stream("POST", f"{M}/exec", json=body) as pieces:
                assert b"".join(pieces.iter_bytes(7)) == whole.content
                assert pieces.is_closed
                with pytest.raises(StreamError):
                    next(pieces.iter_bytes())
            with client.stream("POST", f"{M}/exec", json=body) as raw:
                assert b"".join(raw.iter_raw()) == whole.content
            with client.stream("POST", f"{M}/exec", json=body) as left:
                pass
            with pytest.raises(StreamError):
                left.read()
        recorder.finish(TEST, passed=True)


def test_a_request_stream_with_other_content_is_another_request(rig: Rig) -> None:
    recorder = rig.recorder()
    with recorder.use(TEST):
        rig.http(recorder).request("PUT", f"{M}/agent/file?path=a", content=iter([b"ab", b"c"]))
    recorder.finish(TEST, passed=True)
    replayer = rig.recorder("replay")
    with replayer.use(TEST):
        http = rig.http(replayer)
        http.request("PUT", f"{M}/agent/file?path=a", content=iter([b"a", b"bc"]))
        with pytest.raises(CassetteMiss):
            http.request("PUT", f"{M}/agent/file?path=a", content=iter([b"abd"]))


def test_json_bodies_come_back_byte_for_byte(rig: Rig) -> None:
    """A test may look at the text of an answer of its own server."""
    texts = [
        b'{"a":1.50,"b":"\\u003c\xc3\xa9","a":2}',
        b'{"a": 1, "b": [1, 2, {}]}\n',
        b'{\n  "a": 1\n}\n',
        b"[1,2 ,3]",
        b'{"broken": ',
        b'{"crlf": 1}\r\n',
        b"",
        b"plain\r\ntext\twith \x00 \x85 \xe2\x80\xa8 and trailing space \n\n",
        b"\xff\xfe",
        "💥 ünïcode\n  indented\n".encode(),
        b"   leading\nblock",
    ]
    for position, text in enumerate(texts):
        (rig.server.directory / f"f{position}").write_bytes(text)

    def go(recorder: Recorder) -> list[bytes]:
        http = rig.http(recorder, service="port 8000")
        with recorder.use(TEST):
            return [
                http.request("GET", f"{M}/agent/file?path=f{i}").content for i in range(len(texts))
            ]

    recorder = rig.recorder()
    assert go(recorder) == texts
    recorder.finish(TEST, passed=True)
    assert go(rig.recorder("replay")) == texts


def test_error_statuses_replay(rig: Rig) -> None:
    def go(recorder: Recorder) -> tuple[int, Any]:
        with recorder.use(TEST):
            response = rig.http(recorder).request("GET", f"{M}/agent/file?path=nothing")
        return response.status_code, response.json()

    recorder = rig.recorder()
    live = go(recorder)
    recorder.finish(TEST, passed=True)
    assert go(rig.recorder("replay")) == live == (404, {"error": "no such file"})


class Failing(Transport):
    """Fails before or within the answer."""

    def __init__(self, error: Exception, body: bytes | None = None) -> None:
        self.error = error
        self.body = body

    def handle_request(self, request: Request) -> Response:
        if self.body is None:
            raise self.error
        return Response(200, stream=_Breaking(self.body, self.error))


class _Breaking(SyncByteStream):
    def __init__(self, body: bytes, error: Exception) -> None:
        self.body = body
        self.error = error

    def __iter__(self) -> Iterator[bytes]:
        yield self.body
        raise self.error


def read_into(got: list[bytes], http: Http) -> None:
    with http.stream("GET", f"{M}/x") as response:
        for piece in response.iter_bytes():
            got.append(piece)  # noqa: PERF402 - what came before an error is to be kept


@pytest.mark.parametrize(
    "error", [ConnectError("refused"), ReadTimeout("slow"), RemoteProtocolError("cut")]
)
@pytest.mark.parametrize("body", [None, b"half of it"])
def test_failures_of_the_transport_replay(rig: Rig, error: Exception, body: bytes | None) -> None:
    def go(recorder: Recorder, inner: Transport | None) -> bytes:
        got: list[bytes] = []
        http = rig.http(recorder, inner)
        with recorder.use(TEST), pytest.raises(type(error), match=str(error)):
            read_into(got, http)
        return b"".join(got)

    recorder = rig.recorder()
    live = go(recorder, Failing(error, body))
    recorder.finish(TEST, passed=True)
    assert go(rig.recorder("replay"), None) == live == (body or b"")


def test_an_answer_that_was_not_read_to_its_end_is_kept_as_far_as_it_was(rig: Rig) -> None:
    (rig.server.directory / "a").write_bytes(b"x" * 500_000)

    def go(recorder: Recorder) -> bytes:
        with recorder.use(TEST), rig.http(recorder).stream("GET", f"{M}/agent/file?path=a") as r:
            return next(r.iter_bytes(1000))

    recorder = rig.recorder()
    live = go(recorder)
    recorder.finish(TEST, passed=True)
    assert go(rig.recorder("replay")) == live


def test_only_what_passed_is_written(rig: Rig) -> None:
    recorder = rig.recorder()
    http = rig.http(recorder)
    for key, passed in ((TEST, True), (OTHER, False)):
        with recorder.use(key):
            sh(http, "true")
        recorder.finish(key, passed)
    assert rig.file(TEST).exists()
    assert not rig.file(OTHER).exists()


def test_once_leaves_an_existing_cassette_alone_and_all_replaces_it(rig: Rig) -> None:
    def record(mode: str) -> str:
        recorder = rig.recorder(mode)
        with recorder.use(TEST):
            sh(rig.http(recorder), "echo $COUNT")
        recorder.finish(TEST, passed=True)
        return rig.file().read_text()

    first = record("once")
    assert record("once") == first
    assert record("all") != first


def test_a_recorder_that_is_off_hands_the_transport_back(rig: Rig) -> None:
    inner = rig.pool
    assert rig.recorder("off").transport(inner) is inner
    with pytest.raises(ValueError, match="needs a transport"):
        rig.recorder("off").transport(None)


def test_requests_outside_of_any_scope_pass_unrecorded_and_cannot_be_replayed(rig: Rig) -> None:
    recorder = rig.recorder()
    assert sh(rig.http(recorder), "echo a")["stdout"] == "a\n"
    with recorder.use(TEST), recorder.scopes.paused():
        sh(rig.http(recorder), "echo b")
    recorder.finish(TEST, passed=True)
    assert not rig.directory.exists()
    with pytest.raises(CassetteMiss, match="no test and no fixture was running"):
        sh(rig.http(rig.recorder("replay")), "echo a")


def test_what_was_never_recorded_is_told_from_what_has_no_answer(rig: Rig) -> None:
    recorder = rig.recorder()
    with recorder.use(TEST):
        sh(rig.http(recorder), "echo one two three")
    recorder.finish(TEST, passed=True)
    replayer = rig.recorder("replay", rootdir=rig.directory.parent)
    with replayer.use(OTHER), pytest.raises(CassetteMissing) as never:
        sh(rig.http(replayer), "echo one two three")
    assert str(never.value) == (
        "tests/test_a.py::test_y was never recorded: there is no "
        "cassettes/tests/test_a.py/test_y.yaml to answer\n"
        "    POST /v1/apps/{app}/machines/d5683210c7968e/exec\n"
        "Record it with: pytest tests/test_a.py::test_y --fly-record=all\n"
        "Run it on a machine without recording: pytest --fly-sandbox"
    )
    with replayer.use(TEST), pytest.raises(CassetteMiss) as missed:
        sh(rig.http(replayer), "echo one 2 three")
    assert not isinstance(missed.value, CassetteMissing)
    text = str(missed.value)
    assert '-    "echo one two three"' in text
    assert '+    "echo one 2 three"' in text
    assert "pytest tests/test_a.py::test_x --fly-record=all" in text


def test_a_spec_that_was_never_recorded_is_told_beside_those_that_were(rig: Rig) -> None:
    recorder = rig.recorder(rootdir=rig.directory.parent)
    recorded = [SandboxSpec(repo="."), SandboxSpec(memory_mb=512), SandboxSpec()]
    for spec in recorded:
        with recorder.provisioning(spec) as scope:
            sh(rig.http(recorder), "true")
        recorder.finish(scope.key, passed=True)
    (rig.directory / "sandboxes" / "broken.yaml").write_text("recording: [\n")
    replayer = rig.recorder("replay", rootdir=rig.directory.parent)
    wanted = SandboxSpec(cpus=2)
    with replayer.provisioning(wanted), pytest.raises(CassetteMissing) as missing:
        sh(rig.http(replayer), "true")
    assert (
        "It is a sandbox with cpus=2. Recorded are those with\n"
        "    the defaults\n"
        "    memory_mb=512\n"
        "    repo='.'\n"
    ) in str(missing.value)


def test_plain_vcrpy_reads_and_replays_the_file(rig: Rig) -> None:
    import requests

    (rig.server.directory / "a").write_bytes(b"\xff\x00")
    recorder = rig.recorder()
    with recorder.use(TEST):
        live = sh(rig.http(recorder), "echo ü; echo b")
        rig.http(recorder).request("GET", f"{M}/agent/file?path=a")
    recorder.finish(TEST, passed=True)
    tape = Cassette.load(path=str(rig.file()))
    assert len(tape) == 2
    with vcr.VCR(record_mode="none").use_cassette(str(rig.file())):
        answer = requests.post(f"https://api.machines.dev{M}/exec", data=b"", timeout=1)
        assert answer.json() == live
        answer = requests.get(f"https://api.machines.dev{M}/agent/file?path=a", timeout=1)
        assert answer.content == b"\xff\x00"


def test_a_file_says_what_it_is_and_reads_well(rig: Rig) -> None:
    recorder = rig.recorder(run_id="run-1")
    with recorder.use(TEST):
        sh(rig.http(recorder), "echo hello", timeout=3)
    recorder.finish(TEST, passed=True)
    lines = rig.file().read_text().splitlines()
    assert lines[0:2] == ["version: 1", "recording:"]
    assert "  mode: local" in lines
    assert "  test: tests/test_a.py::test_x" in lines
    assert "  run: run-1" in lines
    assert '          "echo hello"' in lines
    assert '          "stdout": "hello\\n",' in lines
    uri = "https://api.machines.dev/v1/apps/app/machines/d5683210c7968e/exec"
    assert f"    uri: {uri}" in lines
    assert "127.0.0.1" not in "\n".join(lines)
    assert "uthorization" not in "\n".join(lines)


def test_a_file_of_a_version_that_is_too_new_says_how_to_go_on(rig: Rig) -> None:
    recorder = rig.recorder()
    with recorder.use(TEST):
        sh(rig.http(recorder), "true")
    recorder.finish(TEST, passed=True)
    rig.file().write_text(rig.file().read_text().replace("format: 1", "format: 99"))
    replayer = rig.recorder("replay")
    with replayer.use(TEST), pytest.raises(CassetteError, match=r"format 99.*--fly-record=all"):
        sh(rig.http(replayer), "true")


@pytest.mark.parametrize(
    "text", ["", "nonsense", "- a\n- b\n", "version: 1\ninteractions: 3\n", "a: [", "\x00"]
)
def test_a_file_that_is_no_cassette_is_named(rig: Rig, text: str) -> None:
    rig.file().parent.mkdir(parents=True)
    rig.file().write_text(text)
    replayer = rig.recorder("replay")
    with replayer.use(TEST), pytest.raises(CassetteError, match=r"test_x\.yaml is not a cassette"):
        sh(rig.http(replayer), "true")


def test_a_cassette_of_plain_vcrpy_without_our_notes_replays(rig: Rig) -> None:
    rig.file().parent.mkdir(parents=True)
    rig.file().write_text(
        "version: 1\n"
        "interactions:\n"
        "- request:\n"
        "    method: GET\n"
        f"    uri: http://x{M}\n"
        "    body: null\n"
        "    headers: {}\n"
        "  response:\n"
        "    status: {code: 200, message: OK}\n"
        "    headers: {Content-Type: [text/plain]}\n"
        "    body: {string: hello}\n"
    )
    replayer = rig.recorder("replay")
    with replayer.use(TEST):
        assert rig.http(replayer).request("GET", M).text == "hello"


def test_threads_of_a_test_belong_to_it(rig: Rig) -> None:
    def go(recorder: Recorder) -> list[str]:
        http = rig.http(recorder)
        out: list[str] = []
        with recorder.use(TEST):
            threads = [
                threading.Thread(target=lambda i=i: out.append(sh(http, f"echo {i}")["stdout"]))
                for i in range(8)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        recorder.finish(TEST, passed=True)
        return sorted(out)

    live = go(rig.recorder())
    assert go(rig.recorder("replay")) == live == sorted(f"{i}\n" for i in range(8))


def test_a_provisioning_takes_requests_of_its_own_thread_only(rig: Rig) -> None:
    spec = SandboxSpec(image="debian:12")
    recorder = rig.recorder()
    http = rig.http(recorder)
    with recorder.use(TEST):
        with recorder.provisioning(spec):
            thread = threading.Thread(target=sh, args=(http, "echo from the test"))
            thread.start()
            thread.join()
            sh(http, "echo provisioning")
        sh(http, "echo after")
    key = CassetteKey.sandbox(spec)
    recorder.finish(key, passed=True)
    recorder.finish(TEST, passed=True)
    assert "echo provisioning" in rig.file(key).read_text()
    assert "from the test" not in rig.file(key).read_text()
    assert "echo from the test" in rig.file().read_text()
    assert "echo after" in rig.file().read_text()


def test_a_fixture_within_a_test_has_its_own_cassette(rig: Rig) -> None:
    fixture = CassetteKey.fixture("session", "server")
    recorder = rig.recorder()
    http = rig.http(recorder)
    with recorder.use(TEST):
        with recorder.use(fixture):
            sh(http, "echo setup")
        sh(http, "echo test")
    recorder.finish(fixture, passed=True)
    recorder.finish(TEST, passed=True)
    replayer = rig.recorder("replay")
    http = rig.http(replayer)
    with replayer.use(OTHER), replayer.use(fixture):
        assert sh(http, "echo setup")["stdout"] == "setup\n"
    with replayer.use(TEST):
        assert sh(http, "echo test")["stdout"] == "test\n"


def create(http: Http, **config: Any) -> str:
    answer = http.request("POST", "/v1/apps/app/machines", json={"name": "n", "config": config})
    return str(answer.json()["id"])


def test_a_test_replays_beside_a_provisioning_that_made_another_machine(rig: Rig) -> None:
    spec = SandboxSpec(image="debian:12")
    sandbox = CassetteKey.sandbox(spec)

    def go(recorder: Recorder, key: CassetteKey) -> tuple[str, str]:
        http = rig.http(recorder)
        with recorder.use(key):
            with recorder.provisioning(spec):
                machine = create(http, image="debian:12")
            where = f"/v1/apps/app/machines/{machine}/exec"
            command = ["sh", "-c", f"echo this is {machine}"]
            answer = http.request("POST", where, json={"command": command}).json()
        recorder.finish(sandbox, passed=True)
        recorder.finish(key, passed=True)
        return machine, answer["stdout"]

    first, _ = go(rig.recorder(), TEST)
    second, _ = go(rig.recorder(), OTHER)
    assert first != second
    for key in (TEST, OTHER):
        machine, said = go(rig.recorder("replay"), key)
        assert machine == second, "the provisioning was recorded with the second test"
        assert said == f"this is {second}\n", "and the answers tell of the same machine"


def test_a_worker_that_attached_records_what_replays_after_a_launch(rig: Rig) -> None:
    spec = SandboxSpec(image="debian:12")
    launcher = rig.recorder()
    with launcher.use(TEST), launcher.provisioning(spec):
        machine = create(rig.http(launcher), image="debian:12")
    launcher.finish(CassetteKey.sandbox(spec), passed=True)
    attached = rig.recorder()
    attached.identify(spec, id="0123456789abcd")
    with attached.use(OTHER):
        body = {"command": ["echo", "a"]}
        http = rig.http(attached)
        http.request("POST", "/v1/apps/app/machines/0123456789abcd/exec", json=body)
    attached.finish(OTHER, passed=True)
    replayer = rig.recorder("replay")
    http = rig.http(replayer)
    with replayer.use(OTHER):
        with replayer.provisioning(spec):
            assert create(http, image="debian:12") == machine
        answer = http.request("POST", f"/v1/apps/other/machines/{machine}/exec", json=body)
    assert answer.json()["stdout"] == "a\n"


def test_two_machines_of_one_scope_are_told_apart(rig: Rig) -> None:
    fixture = CassetteKey.fixture("session", "pair")

    def go(recorder: Recorder) -> list[str]:
        http = rig.http(recorder)
        with recorder.use(TEST):
            with recorder.use(fixture):
                machines = [create(http, n=n) for n in (1, 2)]
            said = [
                http.request(
                    "POST", f"/v1/apps/a/machines/{m}/exec", json={"command": ["echo", str(n)]}
                ).json()["stdout"]
                for n, m in reversed(list(enumerate(machines)))
            ]
        recorder.finish(fixture, passed=True)
        recorder.finish(TEST, passed=True)
        return said

    assert go(rig.recorder()) == ["1\n", "0\n"]
    again = rig.recorder()
    with again.use(OTHER), again.use(fixture):
        for n in (1, 2):
            create(rig.http(again), n=n)
    again.finish(fixture, passed=True)
    assert go(rig.recorder("replay")) == ["1\n", "0\n"]


def test_provisioning_replays_by_order_when_its_bodies_changed(rig: Rig) -> None:
    """Its file is named by the spec; the rest of its bodies is of whoever provisions."""
    spec = SandboxSpec(image="debian:12", repo=".")
    recorder = rig.recorder()
    with recorder.provisioning(spec):
        http = rig.http(recorder)
        live = [sh(http, "echo one commit"), sh(http, "echo two")]
        http.request("PUT", f"{M}/agent/file?path=a", content=b"packed")
    recorder.finish(CassetteKey.sandbox(spec), passed=True)
    replayer = rig.recorder("replay")
    with replayer.provisioning(spec):
        http = rig.http(replayer)
        assert [sh(http, "echo another commit"), sh(http, "echo two")] == live
        http.request("PUT", f"{M}/agent/file?path=a", content=iter(()))


def test_what_several_workers_recorded_is_written_by_the_first(rig: Rig, tmp_path: Path) -> None:
    """Their tests may build on it, and a file of another worker's answers would not fit them."""
    spec = SandboxSpec(image="debian:12")
    key = CassetteKey.sandbox(spec)
    workers = [rig.recorder(shared=tmp_path / "run") for _ in range(2)]
    for worker in workers:
        with worker.provisioning(spec):
            sh(rig.http(worker), "echo $COUNT")
    workers[0].finish(key, passed=True)
    first = rig.file(key).read_text()
    workers[1].finish(key, passed=True)
    assert rig.file(key).read_text() == first


def poll(http: Http, name: str, offset: int, wait_s: float) -> dict[str, Any]:
    body = {"stdout": offset, "wait_s": wait_s}
    where = f"{M}/agent/processes/{name}/poll"
    answer: dict[str, Any] = http.request("POST", where, json=body).json()
    return answer


def start(http: Http, command: str) -> str:
    body = {"command": ["sh", "-c", command]}
    return str(http.request("POST", f"{M}/agent/processes", json=body).json()["id"])


def watch(recorder: Recorder, http: Http, name: str, wanted: str, timeout_s: float) -> list[str]:
    """Poll until a text is there, as a handle does, by the recorder's clock."""
    pieces: list[str] = []
    deadline = recorder.clock.monotonic() + timeout_s
    while wanted not in "".join(pieces):
        left = deadline - recorder.clock.monotonic()
        if left <= 0:
            return [*pieces, "timed out"]
        piece = poll(http, name, len("".join(pieces)), min(left, 0.05))["stdout"]
        pieces.append(piece)
        recorder.clock.sleep(0.01)
    return pieces


@pytest.mark.parametrize(
    "command", ["for i in 1 2 3; do echo $i; sleep 0.08; done; echo ready; sleep 5", "sleep 5"]
)
def test_a_loop_with_a_deadline_decides_in_replay_as_it_did(rig: Rig, command: str) -> None:
    """It asks as often, gives up or succeeds as it did, and nothing waits."""

    def go(recorder: Recorder) -> list[str]:
        http = rig.http(recorder)
        with recorder.use(TEST):
            return watch(recorder, http, start(http, command), "ready", 0.6)

    recorder = rig.recorder()
    live = go(recorder)
    recorder.finish(TEST, passed=True)
    for process, _ in rig.server.processes.values():
        process.kill()
    replayer = rig.recorder("replay")
    assert go(replayer) == live
    scope = replayer.scopes.all()[0]
    assert replayer.unused(scope) == []
    assert isinstance(replayer.clock, ReplayClock)


def test_time_between_requests_passes_in_replay_too(rig: Rig) -> None:
    recorder = rig.recorder()
    with recorder.use(TEST):
        http = rig.http(recorder)
        begin = recorder.clock.monotonic()
        sh(http, "echo a")
        recorder.clock.sleep(0.2)
        threading.Event().wait(0.1)  # the test's own time
        sh(http, "echo b")
        live_s = recorder.clock.monotonic() - begin
    recorder.finish(TEST, passed=True)
    replayer = rig.recorder("replay")
    with replayer.use(TEST):
        http = rig.http(replayer)
        sh(http, "echo a")
        replayer.clock.sleep(0.2)
        sh(http, "echo b")
    assert replayer.clock.monotonic() == pytest.approx(live_s, abs=0.05)


def test_the_last_answer_to_a_question_holds_until_something_is_done(rig: Rig) -> None:
    (rig.server.directory / "a").write_bytes(b"one")
    recorder = rig.recorder()
    with recorder.use(TEST):
        http = rig.http(recorder)
        http.request("GET", f"{M}/agent/file?path=a")
        sh(http, "echo two > a")
    recorder.finish(TEST, passed=True)
    replayer = rig.recorder("replay")
    with replayer.use(TEST):
        http = rig.http(replayer)
        for _ in range(3):
            assert http.request("GET", f"{M}/agent/file?path=a").content == b"one"
        sh(http, "echo two > a")
        with pytest.raises(CassetteMiss):
            http.request("GET", f"{M}/agent/file?path=a")


def test_requests_that_nobody_made_are_told(rig: Rig) -> None:
    recorder = rig.recorder()
    with recorder.use(TEST):
        http = rig.http(recorder)
        sh(http, "echo a")
        http.request("GET", f"{M}/agent/file?path=a")
    recorder.finish(TEST, passed=True)
    replayer = rig.recorder("replay")
    with replayer.use(TEST) as scope:
        assert len(replayer.unused(scope)) == 2
        sh(rig.http(replayer), "echo a")
        assert replayer.unused(scope) == [
            "GET /v1/apps/{app}/machines/d5683210c7968e/agent/file?path=a"
        ]


def test_a_service_is_recorded_under_its_own_name(rig: Rig) -> None:
    (rig.server.directory / "a").write_bytes(b"web")
    recorder = rig.recorder()
    with recorder.use(TEST):
        rig.http(recorder, service="port 8000").request("GET", f"{M}/agent/file?path=a")
    recorder.finish(TEST, passed=True)
    replayer = rig.recorder("replay")
    with replayer.use(TEST):
        with pytest.raises(CassetteMiss):
            rig.http(replayer, service="port 9000").request("GET", f"{M}/agent/file?path=a")
        answer = rig.http(replayer, service="port 8000").request("GET", f"{M}/agent/file?path=a")
    assert answer.content == b"web"


def test_compressed_bodies_are_kept_readable(rig: Rig) -> None:
    import gzip

    class Gzipped(Transport):
        def handle_request(self, request: Request) -> Response:
            body = gzip.compress(json.dumps({"said": "hello"}).encode())
            headers = {"content-encoding": "gzip", "content-type": "application/json"}
            return Response(200, headers=headers, content=body)

    def go(recorder: Recorder, inner: Transport | None) -> Any:
        with recorder.use(TEST):
            return rig.http(recorder, inner).request("GET", "/x").json()

    recorder = rig.recorder()
    assert go(recorder, Gzipped()) == {"said": "hello"}
    recorder.finish(TEST, passed=True)
    assert '"said": "hello"' in rig.file().read_text()
    assert go(rig.recorder("replay"), None) == {"said": "hello"}


def test_a_full_disk_leaves_the_old_cassette(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rename is what fails here; a disk that is really full is tested as root."""
    recorder = rig.recorder()
    with recorder.use(TEST):
        sh(rig.http(recorder), "echo old")
    recorder.finish(TEST, passed=True)
    old = rig.file().read_bytes()

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    recorder = rig.recorder()
    with recorder.use(TEST):
        sh(rig.http(recorder), "echo new")
    with pytest.raises(CassetteError, match=r"test_x\.yaml was not written and is as it was"):
        recorder.finish(TEST, passed=True)
    assert rig.file().read_bytes() == old
    assert list(rig.file().parent.iterdir()) == [rig.file()], "no temporary file is left"


def test_a_cassette_holds_what_the_api_finally_answered(rig: Rig) -> None:
    """Tries that were refused are repeated beneath the recorder, and are not in it."""

    class Busy(Transport):
        tries = 0

        def handle_request(self, request: Request) -> Response:
            self.tries += 1
            if self.tries < 3:
                return Response(429, headers={"retry-after": "0"}, json={"error": "too many"})
            return Response(200, json={"state": "started"})

    busy = Busy()
    recorder = rig.recorder()
    with recorder.use(TEST), stamina.set_testing(True, attempts=3, cap=True):
        http = rig.http(recorder, build_transport(busy, pace=False))
        assert http.request("GET", M).json() == {"state": "started"}
    assert busy.tries == 3
    recorder.finish(TEST, passed=True)
    assert rig.file().read_text().count("- request:") == 1
    replayer = rig.recorder("replay")
    with replayer.use(TEST):
        assert rig.http(replayer).request("GET", M).json() == {"state": "started"}
    assert busy.tries == 3
