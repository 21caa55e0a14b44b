"""A planted secret never reaches the disk, wherever a test puts it."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_flymachines._http import Http, Request, Response, Transport
from pytest_flymachines.agent.server.digests import HEADER, checked
from pytest_flymachines.cassettes import CassetteKey, Recorder, Scrubber
from pytest_flymachines.cassettes.hindsight import look_again
from pytest_flymachines.cassettes.packing import unpacked
from pytest_flymachines.errors import CassetteError, CassetteMiss
from pytest_flymachines.spec import SandboxSpec

TEST = CassetteKey.test("test_a.py::test_x")
SECRET = "fo1_pl4nted/s3cret+value=="
PLACEHOLDER = "<FLY_API_TOKEN***********>"
M = "/v1/apps/app/machines/m"

Talk = Callable[[Http], list[Any]]


class Echo(Transport):
    """Answers with what the request's `x-answer` extension says, or with the request's body."""

    def __init__(self, answers: list[bytes] | None = None) -> None:
        self.answers = answers or []

    def handle_request(self, request: Request) -> Response:
        body = self.answers.pop(0) if self.answers else request.read()
        kind = "application/json" if body[:1] in (b"{", b"[") else "application/octet-stream"
        return Response(200, headers={"content-type": kind}, content=body)


def everything_below(directory: Path) -> bytes:
    """All bytes of all files, and what is compressed in them."""
    found = [path.read_bytes() for path in directory.rglob("*") if path.is_file()]
    return b"\n".join([*found, *(unpacked(data) or b"" for data in found)])


def record(
    directory: Path,
    talk: Talk,
    *,
    answers: list[bytes] | None = None,
    name: str = "FLY_API_TOKEN",
) -> list[Any]:
    scrubber = Scrubber([name], environ={name: SECRET})
    recorder = Recorder(directory, mode="all", source="live", scrubber=scrubber)
    transport = recorder.transport(Echo(list(answers or [])))
    with recorder.use(TEST):
        got = talk(Http(transport, "https://api.machines.dev", {"Authorization": SECRET}))
    recorder.finish(TEST, passed=True)
    return got


def replay(directory: Path, talk: Talk, **environ: str) -> list[Any]:
    recorder = Recorder(directory, mode="replay", scrubber=Scrubber(environ=environ))
    with recorder.use(TEST):
        return talk(Http(recorder.transport(None), "https://api.machines.dev"))


def put(body: bytes) -> Talk:
    return lambda http: [http.request("PUT", f"{M}/agent/file?path=a", content=body).content]


def run(**body: Any) -> Talk:
    return lambda http: [http.request("POST", f"{M}/exec", json=body).json()]


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


PLACES: dict[str, Talk] = {
    "command": run(command=["echo", SECRET]),
    "command in base64": run(command=["sh", "-c", f"echo {b64('x' + SECRET)} | base64 -d"]),
    "env": run(command=["env"], env={"DEPLOY_TOKEN": SECRET, "LEVEL": SECRET}),
    "file": put(f"token={SECRET}\n".encode()),
    "binary file": put(b"\x00\xff" + SECRET.encode() + b"\xfe" * 50),
    "gzip file": put(gzip.compress(SECRET.encode() * 3)),
    "large file": put(b"fill\n" * 70_000 + SECRET.encode()),
    "name in JSON": run(labels={f"x{SECRET}": [{SECRET: 1}], "é": {}}),
    "name in JSON in JSON": run(command=["x", json.dumps({SECRET: 1})]),
    "config file": run(config={"files": [{"guest_path": "/x", "raw_value": b64(SECRET)}]}),
    "query": lambda http: [
        http.request("GET", f"{M}/agent/file", params={"path": SECRET}).status_code
    ],
    "path": lambda http: [
        http.request("GET", f"{M}/metadata/{SECRET.replace('/', '%2F')}").status_code
    ],
    "text lines": put(json.dumps({"a": SECRET}).encode() + b"\n" + json.dumps([SECRET]).encode()),
    "over lines of a mail": run(stdin=f"a {SECRET[:9]}=\r\n{SECRET[9:]}"),
    "over lines of a mail, in base64": run(
        stdin={"base64": b64(f"\x7f{SECRET[:9]}=\r\n{SECRET[9:]}")}
    ),
    "over lines in the name": run(labels={f"{SECRET[:9]}=\n{SECRET[9:]}": 1}),
    "in base64 four times": run(stdin={"base64": b64(b64(b64(b64(f"x{SECRET}y"))))}),
    "packed bytes": run(stdin={"base64": b64("\x7f" + SECRET)}),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_planted_token_is_nowhere_on_the_disk_and_the_test_still_replays(
    tmp_path: Path, place: str
) -> None:
    live = record(tmp_path, PLACES[place])
    found = everything_below(tmp_path)
    assert not Scrubber(environ={"FLY_API_TOKEN": SECRET}).find(found)
    for spelling in (SECRET, SECRET.replace("/", "%2F"), b64(SECRET), b64("x" + SECRET)[2:-4]):
        assert spelling.encode() not in found
    again = replay(tmp_path, PLACES[place], FLY_API_TOKEN=SECRET)
    assert len(again) == len(live)


def test_a_test_replays_with_another_token_of_another_length(tmp_path: Path) -> None:
    record(tmp_path, run(command=["curl", "-H", f"X-Key: {SECRET}"]))
    other = "another-and-longer-token-than-the-one-that-was-recorded"
    [answer] = replay(tmp_path, run(command=["curl", "-H", f"X-Key: {other}"]), FLY_API_TOKEN=other)
    assert answer["command"][2].startswith("X-Key: <FLY_API_TOKEN")


def test_secret_variables_replay_whatever_their_value_is_now(tmp_path: Path) -> None:
    record(tmp_path, run(command=["x"], env={"DB_PASSWORD": "one-of-the-recording"}))
    replay(tmp_path, run(command=["x"], env={"DB_PASSWORD": "two"}))
    assert b"one-of-the-recording" not in everything_below(tmp_path)


@pytest.mark.parametrize("value", ["a-dummy", "correcthorse", 'with "quotes" and é', SECRET])
@pytest.mark.parametrize(
    "talk",
    [
        lambda value: run(command=["login", f"-p={value}", "-v"]),
        lambda value: run(command=["login", value, value], stdin=f"{value}\n"),
        lambda value: put(f"token={value}\n".encode()),
        lambda value: (
            lambda http: [
                http.request("GET", f"{M}/metadata/x", params={"token": value}).status_code
            ]
        ),
    ],
)
def test_a_secret_that_is_not_known_in_replay_is_not_compared(
    tmp_path: Path, value: str, talk: Callable[[str], Talk]
) -> None:
    record(tmp_path, talk(SECRET))
    replay(tmp_path, talk(value))


def packed(content: str) -> bytes:
    """A compressed archive with a file."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        member = tarfile.TarInfo("conf/.env")
        member.size = len(content.encode())
        archive.addfile(member, io.BytesIO(content.encode()))
        archive.addfile(tarfile.TarInfo("conf/empty"))
    return data.getvalue()


LONG = "more=1\n" * 900
HOLDS: dict[str, Callable[[str], Talk]] = {
    "a long file": lambda value: put(f"[a]\ntoken={value}\n{LONG}b={value}".encode()),
    "a tree": lambda value: put(packed(f"A=b\ntoken={value}\n")),
    "base64": lambda value: run(command=["sh", "-c", f"echo {b64(value)} >a"]),
    "a line in base64": lambda value: run(stdin=b64(f"u:{value}:p\n")),
    "a query": lambda value: (
        lambda http: [http.request("GET", f"{M}/metadata/x", params={"t": b64(value)}).status_code]
    ),
}


@pytest.mark.parametrize("name", ["FLY_API_TOKEN", "LICENCE"])
@pytest.mark.parametrize("value", ["a-dummy", 'with "quotes" and é, longer than it was', SECRET])
@pytest.mark.parametrize("what", HOLDS)
def test_a_secret_unknown_in_replay_is_found_in_what_holds_it(
    tmp_path: Path, what: str, value: str, name: str
) -> None:
    """Where a digest is compared as a rule, and in base64."""
    record(tmp_path, HOLDS[what](SECRET), name=name)
    assert not Scrubber(environ={"FLY_API_TOKEN": SECRET}).find(everything_below(tmp_path))
    replay(tmp_path, HOLDS[what](value))
    replay(tmp_path, HOLDS[what](SECRET), FLY_API_TOKEN=SECRET)


def sends_digest(send: Callable[[str], Talk]) -> Talk:
    """What has a secret is sent, and then its digest."""
    content = f"token={SECRET}\n"
    digest = hashlib.sha256(content.encode()).hexdigest()
    check = run(command=["sh", "-c", f"echo {digest} a | sha256sum -c"])
    return lambda http: [*send(content)(http), *check(http)]


@pytest.mark.parametrize(
    "send",
    [
        lambda content: put(content.encode()),
        lambda content: run(stdin=content),
        lambda content: run(stdin={"base64": b64(content)}),
    ],
)
def test_the_digest_of_what_was_sent_with_a_secret_replays(
    tmp_path: Path, send: Callable[[str], Talk]
) -> None:
    talk = sends_digest(send)
    record(tmp_path, talk)
    replay(tmp_path, talk, FLY_API_TOKEN=SECRET)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (put(f"{SECRET}{'x' * 9000}".encode()), put(f"a-dummy{'y' * 9000}".encode())),
        (put(packed(f"a={SECRET}")), put(packed("b=a-dummy"))),
        (put(packed(f"a={SECRET}")), put(b"a=a-dummy")),
        (put(b"\xff" * 9000), put(b"\\xff" * 9000)),
        (run(stdin=b64(f"u:{SECRET}:p")), run(stdin=b64("u:a-dummy:q"))),
        (run(stdin=b64(f"u:{SECRET}:p")), run(stdin="u:a-dummy:p")),
        (run(stdin=b64("four")), run(stdin=b64("more"))),
    ],
)
def test_what_holds_a_secret_is_compared_beside_it(tmp_path: Path, one: Talk, other: Talk) -> None:
    record(tmp_path, one)
    with pytest.raises(CassetteMiss):
        replay(tmp_path, other)


@pytest.mark.parametrize(
    "command",
    [
        ["login", "a-dummy", "b"],
        ["login", "a", "dummy"],
        ["log", "a-dummy", "a-dummy"],
        ["login", "a-dummy", "a-dummy", "x"],
        ["login", "a-dummy", "other-dummy"],
        ["login", "", ""],
    ],
)
def test_what_stands_beside_a_secret_is_compared(tmp_path: Path, command: list[str]) -> None:
    record(tmp_path, run(command=["login", SECRET, SECRET]))
    with pytest.raises(CassetteMiss):
        replay(tmp_path, run(command=command))


def test_what_looks_like_a_placeholder_and_was_no_secret_is_compared(tmp_path: Path) -> None:
    record(tmp_path, run(command=["echo", "<b>", f"x{SECRET}"]))
    with pytest.raises(CassetteMiss):
        replay(tmp_path, run(command=["echo", "<i>", "xa-dummy"]))


def test_tests_replay_apart_that_know_a_secret_from_each_other(tmp_path: Path) -> None:
    """One test's variable is a secret in what another test sends, whichever is replayed first."""
    first, second = CassetteKey.test("test_a.py::test_1"), CassetteKey.test("test_a.py::test_2")
    talks = {
        first: run(command=["x"], env={"DB_PASSWORD": "correcthorse"}),
        second: run(command=["echo", "correcthorse"]),
    }
    recorder = Recorder(tmp_path, mode="all", scrubber=Scrubber(environ={}))
    for key, talk in talks.items():
        with recorder.use(key):
            talk(Http(recorder.transport(Echo()), "https://api.machines.dev"))
        recorder.finish(key, passed=True)
    assert b"correcthorse" not in everything_below(tmp_path)
    for keys in ([second], [second, first], [first, second]):
        replayer = Recorder(tmp_path, mode="replay", scrubber=Scrubber(environ={}))
        for key in keys:
            with replayer.use(key):
                talks[key](Http(replayer.transport(None), "https://api.machines.dev"))


LATE = "correct/horse+battery=staple"
EARLY: dict[str, Talk] = {
    "command": run(command=["login", LATE]),
    "file": put(f"token={LATE}\n".encode()),
    "large file": put(b"fill\n" * 70_000 + LATE.encode()),
    "base64": run(stdin={"base64": b64("\x7f" + LATE)}),
}


@pytest.mark.parametrize("place", EARLY)
@pytest.mark.parametrize("elsewhere", [False, True])
def test_what_is_known_for_a_secret_too_late_is_taken_out_at_the_end(
    tmp_path: Path, place: str, elsewhere: bool
) -> None:
    first, second = CassetteKey.test("test_a.py::test_1"), CassetteKey.test("test_a.py::test_2")
    talks = {first: EARLY[place], second: run(command=["x"], env={"DB_PASSWORD": LATE})}
    recorders = [Recorder(tmp_path, mode="all", scrubber=Scrubber(environ={})) for _ in "12"]
    for key, recorder in zip(talks, recorders if elsewhere else recorders[:1] * 2, strict=True):
        with recorder.use(key):
            talks[key](Http(recorder.transport(Echo()), "https://api.machines.dev"))
        recorder.finish(key, passed=True)
    secret = Scrubber(environ={"DB_PASSWORD": LATE})
    assert secret.find(everything_below(tmp_path))
    assert look_again(tmp_path, [recorder.seen() for recorder in recorders]) == []
    assert not secret.find(everything_below(tmp_path))
    replayer = Recorder(tmp_path, mode="replay", scrubber=secret)
    for key, talk in talks.items():
        with replayer.use(key):
            talk(Http(replayer.transport(None), "https://api.machines.dev"))


def test_what_cannot_be_taken_out_at_the_end_is_deleted_and_told(tmp_path: Path) -> None:
    first, second = CassetteKey.test("test_a.py::test_1"), CassetteKey.test("test_a.py::test_2")
    packed = b"PK and" + zlib.compress(b"x" * 50 + LATE.encode()) + b"\xff" * 50
    talks = {first: put(packed), second: run(command=["x"], env={"DB_PASSWORD": LATE})}
    recorder = Recorder(tmp_path, mode="all", scrubber=Scrubber(environ={}))
    for key, talk in talks.items():
        with recorder.use(key):
            talk(Http(recorder.transport(Echo()), "https://api.machines.dev"))
        recorder.finish(key, passed=True)
    [told] = look_again(tmp_path, [recorder.seen()])
    assert "test_1.yaml was deleted" in told
    assert "DB_PASSWORD" in told
    assert LATE not in told
    assert [path.name for path in tmp_path.rglob("*.yaml")] == ["test_2.yaml"]


def test_what_the_name_of_a_test_has_is_deleted_at_the_end_and_not_shown(tmp_path: Path) -> None:
    value = "correct-horse-battery"
    first = CassetteKey.test(f"test_a.py::test_1[{value}]")
    second = CassetteKey.test("test_a.py::test_2")
    talks = {first: run(command=["x"]), second: run(command=["x"], env={"DB_PASSWORD": value})}
    recorder = Recorder(tmp_path, mode="all", scrubber=Scrubber(environ={}))
    for key, talk in talks.items():
        with recorder.use(key):
            talk(Http(recorder.transport(Echo()), "https://api.machines.dev"))
        recorder.finish(key, passed=True)
    [told] = look_again(tmp_path, [recorder.seen()])
    assert "DB_PASSWORD in the name of the test" in told
    assert value not in told
    assert [path.name for path in tmp_path.rglob("*.yaml")] == ["test_2.yaml"]


def test_a_variable_of_a_test_that_fails_is_a_secret_too(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, mode="all", scrubber=Scrubber(environ={}))
    with recorder.use(TEST):
        run(command=["x"], env={"DB_PASSWORD": LATE})(
            Http(recorder.transport(Echo()), "https://api.machines.dev")
        )
    recorder.finish(TEST, passed=False)
    assert recorder.scrubber.find(LATE.encode()) == {"DB_PASSWORD"}


def test_a_secret_variable_is_a_secret_in_the_output_too(tmp_path: Path) -> None:
    answer = json.dumps({"stdout": "DB_PASSWORD=correcthorse\n"}).encode()
    record(tmp_path, run(command=["env"], env={"DB_PASSWORD": "correcthorse"}), answers=[answer])
    assert b"correcthorse" not in everything_below(tmp_path)


@pytest.mark.parametrize("cut", range(1, len(SECRET)))
def test_a_secret_that_two_answers_share_is_taken_out_of_both(tmp_path: Path, cut: int) -> None:
    pieces = [f"before {SECRET[:cut]}", f"{SECRET[cut:]} after"]
    answers = [json.dumps({"id": "p1", "stdout": piece}).encode() for piece in pieces]

    def talk(http: Http) -> list[Any]:
        offset, out = 0, []
        for _ in pieces:
            body = {"stdout": offset}
            out.append(http.request("POST", f"{M}/agent/processes/p1/poll", json=body).json())
            offset += len(out[-1]["stdout"])
        return out

    record(tmp_path, talk, answers=answers)
    found = everything_below(tmp_path)
    assert SECRET[: max(cut, len(SECRET) - cut)].encode() not in found
    again = replay(tmp_path, talk)
    assert "".join(a["stdout"] for a in again) == f"before {PLACEHOLDER} after"
    assert [len(a["stdout"]) for a in again] == [len(piece) for piece in pieces]


def test_pieces_in_base64_are_looked_at_together(tmp_path: Path) -> None:
    raw = b"\xff" + SECRET.encode() + b"\xfe"
    answers = [
        json.dumps({"id": "p1", "stdout": {"base64": base64.b64encode(part).decode()}}).encode()
        for part in (raw[:9], raw[9:])
    ]
    talk: Talk = lambda http: [  # noqa: E731
        http.request("POST", f"{M}/agent/processes/p1/poll", json={"stdout": n}).json()
        for n in (0, 9)
    ]
    record(tmp_path, talk, answers=answers)
    parts = [base64.b64decode(a["stdout"]["base64"]) for a in replay(tmp_path, talk)]
    assert b"".join(parts) == b"\xff" + PLACEHOLDER.encode() + b"\xfe"


@pytest.mark.parametrize("tail", [False, True])
def test_a_digest_follows_the_body_that_it_is_of(tmp_path: Path, tail: bool) -> None:
    """The client checks what it reads; a scrubbed file must pass."""
    content = f"key {SECRET}\n".encode()

    class Files(Transport):
        def handle_request(self, request: Request) -> Response:
            digest = hashlib.sha256(content).hexdigest()
            headers = {"x-content-sha256": "tail" if tail else digest}
            return Response(200, headers=headers, content=content + digest.encode() * tail)

    scrubber = Scrubber(environ={"FLY_API_TOKEN": SECRET})
    recorder = Recorder(tmp_path, mode="all", scrubber=scrubber)
    with recorder.use(TEST):
        Http(recorder.transport(Files()), "https://x").request("GET", f"{M}/agent/file?path=a")
    recorder.finish(TEST, passed=True)
    replayer = Recorder(tmp_path, mode="replay", scrubber=Scrubber(environ={}))
    with replayer.use(TEST):
        http = Http(replayer.transport(None), "https://x")
        with http.stream("GET", f"{M}/agent/file?path=a") as answer:
            assert b"<FLY_API_TOKEN" in b"".join(
                checked(answer.iter_bytes(), answer.headers[HEADER])
            )


def test_every_authorization_is_a_secret(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, mode="all", scrubber=Scrubber(environ={}))
    http = Http(recorder.transport(Echo()), "https://x", {"Authorization": "Bearer agent-t0ken-1"})
    with recorder.use(TEST):
        http.request("POST", f"{M}/exec", json={"command": ["echo", "agent-t0ken-1"]})
    recorder.finish(TEST, passed=True)
    assert b"agent-t0ken-1" not in everything_below(tmp_path)
    assert b"<Authorizati" not in everything_below(tmp_path), "too short for its name"
    assert b"*************" in everything_below(tmp_path)


def test_specs_in_headers_hold_no_secret(tmp_path: Path) -> None:
    spec = SandboxSpec(
        image="debian:12",
        repo=f"https://me:{SECRET}@example.com/x".replace("/s3", "s3"),
        env={"A_TOKEN": SECRET, "LEVEL": SECRET},
        setup=(f"login {SECRET}",),
    )
    recorder = Recorder(tmp_path, mode="all", scrubber=Scrubber(environ={"FLY_API_TOKEN": SECRET}))
    with recorder.provisioning(spec):
        http = Http(recorder.transport(Echo()), "https://x")
        http.request("POST", f"{M}/exec", json={"command": ["true"]})
    recorder.finish(CassetteKey.sandbox(spec), passed=True)
    found = everything_below(tmp_path)
    assert b"pl4nted" not in found
    assert b"login <FLY_API_TOKEN" in found


def test_a_secret_that_cannot_be_taken_out_stops_the_save_and_says_where(tmp_path: Path) -> None:
    record(tmp_path, run(command=["old"]))
    path = tmp_path / TEST.path
    old = path.read_bytes()
    scrubber = Scrubber(environ={"FLY_API_TOKEN": SECRET})
    recorder = Recorder(tmp_path, mode="all", scrubber=scrubber)
    with recorder.use(TEST):
        http = Http(recorder.transport(Echo()), "https://x")
        http.request("POST", f"{M}/exec", json={"command": ["ok"]})
        http.request("POST", f"{M}/exec", json={"command": [SECRET]})
    scrubber.data = lambda data, depth=4: data  # type: ignore[method-assign]
    with pytest.raises(CassetteError) as refused:
        recorder.finish(TEST, passed=True)
    assert "FLY_API_TOKEN in request 2, body; FLY_API_TOKEN in answer 2, body" in str(refused.value)
    assert SECRET not in str(refused.value)
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == [path.name]


def test_names_that_would_become_one_stop_the_save(tmp_path: Path) -> None:
    one, two = "k4s8-1one1", "k4s8-2two2"
    scrubber = Scrubber(environ={"DEPLOYMENT_TOKEN": one, "REPOSITORY_TOKEN": two})
    recorder = Recorder(tmp_path, mode="all", scrubber=scrubber)
    with recorder.use(TEST):
        http = Http(recorder.transport(Echo()), "https://x")
        http.request("POST", f"{M}/exec", json={"a": {one: 1, two: 2}})
    with pytest.raises(
        CassetteError, match="DEPLOYMENT_TOKEN, REPOSITORY_TOKEN in request 1, body"
    ):
        recorder.finish(TEST, passed=True)


def test_our_own_files_and_marks_are_not_kept(tmp_path: Path) -> None:
    own = {"guest_path": "/opt/pytest-flymachines/agent.pyz", "raw_value": b64("x" * 9000)}
    user = {"guest_path": "/etc/motd", "raw_value": b64("hello")}
    marks = {"pytest_flymachines_owner": "me@my-computer", "mine": "yes"}
    body = {"config": {"files": [own, user], "metadata": marks}}
    create: Talk = lambda http: [  # noqa: E731
        http.request("POST", "/v1/apps/a/machines", json=body).json()
    ]
    record(tmp_path, create)
    found = everything_below(tmp_path)
    assert len(found) < 3000
    assert b64("hello").encode() in found
    assert b'"mine": "yes"' in found
    assert b"my-computer" not in found
    replay(tmp_path, create)


def test_the_packed_repository_is_not_kept(tmp_path: Path) -> None:
    pack: Talk = lambda http: [  # noqa: E731
        http.request("PUT", f"{M}/agent/files?path=.pytest-flymachines.pack", content=body).content
        for body in (b"\x00 the whole repository",)
    ]
    record(tmp_path, pack, answers=[b'{"size":1}'])
    assert b"the whole repository" not in everything_below(tmp_path)
    replay(tmp_path, pack)
