"""Secrets that are cut in two, or packed in what is cut, are taken out or stop the save."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_flymachines._http import Http, Request, Response, Transport
from pytest_flymachines.cassettes import CassetteKey, Recorder, Scrubber
from pytest_flymachines.cassettes.kept import Attic, Kept
from pytest_flymachines.errors import CassetteError
from pytest_flymachines.sandbox.runner import quote, unpack_block
from tests.cassettes.views import archive, parts_of, recorded

TEST = CassetteKey.test("test_a.py::test_x")
SECRET = b"fo1_pl4nted/s3cret+value=="
M = "/v1/apps/app/machines/m"
RUNNER = ["/bin/sh", "-c", "/opt/pytest-flymachines/api", "fly", "12345678", "", "/workspace", "/"]

Ask = tuple[str, str, Any, Any]


class Answers(Transport):
    """Gives the next answer, JSON or bytes."""

    def __init__(self, answers: list[Any]) -> None:
        self.answers = list(answers)

    def handle_request(self, request: Request) -> Response:
        answer = self.answers.pop(0)
        if isinstance(answer, bytes):
            digest = hashlib.sha256(answer).hexdigest()
            return Response(200, headers={"x-content-sha256": digest}, content=answer)
        return Response(200, json=answer)


def talk(http: Http, asks: list[Ask]) -> list[Any]:
    """Bodies of answers, JSON as values."""
    got = []
    for method, path, body, answer in asks:
        sent = {"content": body} if isinstance(body, bytes) else {"json": body}
        response = http.request(method, M + path, **sent)
        got.append(response.content if isinstance(answer, bytes) else response.json())
    return got


def record(directory: Path, asks: list[Ask], secret: bytes = SECRET) -> None:
    known = {"FLY_API_TOKEN": secret.decode()} if secret else {}
    recorder = Recorder(directory, mode="all", scrubber=Scrubber(environ=known))
    answers = Answers([answer for *_, answer in asks])
    with recorder.use(TEST):
        talk(Http(recorder.transport(answers), "https://x"), asks)
    recorder.finish(TEST, passed=True)
    for _, found in recorded(directory):
        assert not parts_of(SECRET, found)


def replay(directory: Path, asks: list[Ask]) -> list[Any]:
    recorder = Recorder(directory, mode="replay", scrubber=Scrubber(environ={}))
    with recorder.use(TEST):
        return talk(Http(recorder.transport(None), "https://x"), asks)


def told(*words: object, blocks: tuple[str, ...] = ()) -> dict[str, Any]:
    """What the runner says."""
    return {"exit_code": 0, "stdout": " ".join(map(str, words)) + "\n" + "".join(blocks)}


def block(data: bytes, kind: str = "b") -> str:
    packed = gzip.compress(data) if kind == "z" else data
    return f"{kind}\n{base64.encodebytes(packed).decode()}.\n"


def to_runner(*words: object, answer: Any) -> Ask:
    return ("POST", "/exec", {"command": [*RUNNER, *map(str, words)]}, answer)


def block_of(answer: dict[str, Any], number: int = 0) -> bytes:
    return unpack_block(answer["stdout"].partition("\n")[2].split(".\n")[number])


@pytest.mark.parametrize("kind", ["b", "z"])
def test_a_read_over_the_api_has_the_digest_of_what_is_left(tmp_path: Path, kind: str) -> None:
    content = b"line\n" * 400 + SECRET + b"\nline" * 400
    digest = hashlib.sha256(content).hexdigest()
    asks = [
        to_runner("read", "./a", 0, 1 << 20, answer=told(digest, blocks=(block(content, kind),)))
    ]
    record(tmp_path, asks)
    [answer] = replay(tmp_path, asks)
    again = block_of(answer)
    assert len(again) == len(content)
    assert b"<FLY_API_TOKEN" in again
    assert answer["stdout"].partition("\n")[0] == hashlib.sha256(again).hexdigest()


@pytest.mark.parametrize("cut", range(1, len(SECRET), 5))
@pytest.mark.parametrize("kinds", ["bb", "zz", "bz"])
def test_output_over_the_api_is_looked_at_as_a_whole(tmp_path: Path, cut: int, kinds: str) -> None:
    parts = (b"before " * 9 + SECRET[:cut], SECRET[cut:] + b" after" * 9)
    asks, offset = [], 0
    for kind, part in zip(kinds, parts, strict=True):
        said = told("p1-0123abcd", 7, "-", 0, 0, 1, "-", blocks=(block(part, kind), ".\n"))
        asks.append(to_runner("poll", "p1-0123abcd", offset, 0, 5, "", answer=said))
        offset += len(part)
    record(tmp_path, asks)
    again = b"".join(block_of(answer) for answer in replay(tmp_path, asks))
    assert len(again) == len(b"".join(parts))
    assert b"before <FLY_API_TOKEN***********> after" in again


def test_a_tree_that_came_in_pieces_can_still_be_unpacked(tmp_path: Path) -> None:
    """Its digest was told by another answer, and its headers have checksums."""
    name = "a-file-of-a-long-name"
    packed = gzip.compress(archive(name, SECRET * 30) + archive(SECRET.decode()[:8], b""), 1)
    digest = hashlib.sha256(packed).hexdigest()
    said = block(f"s1 {len(packed)} gzip {digest}\n".encode())
    asks = [
        to_runner(
            *("start", 5, 1, "key", "", "", "", "", ".", "tpack_tree", ""),
            answer=told("p1-0123abcd", 7, 0, 90, 0, 1, "-", blocks=(said, ".\n")),
        )
    ]
    for at in range(0, len(packed), 100):
        piece = packed[at : at + 100]
        answer = told(hashlib.sha256(piece).hexdigest(), blocks=(block(piece),))
        asks.append(to_runner("spool", "s1", at, answer=answer))
    record(tmp_path, asks)
    start, *pieces = replay(tmp_path, asks)
    again = b"".join(map(block_of, pieces))
    assert len(again) == len(packed)
    assert hashlib.sha256(again).hexdigest() in block_of(start).decode()
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(again))) as tar:
        content = tar.extractfile(name)
        assert content is not None
        assert content.read().startswith(b"<FLY_API_TOKEN")


def staged(data: bytes, size: int, *kind: str) -> list[Ask]:
    asks: list[Ask] = []
    for at in range(0, len(data), size):
        carried = "b" + base64.b64encode(data[at : at + size]).decode()
        name = "s1-abcd" if at else ""
        asks.append(to_runner("stage", name, at, carried, *kind, answer=told("s1-abcd", at + size)))
    return asks


def test_what_is_sent_in_pieces_is_refused_where_a_secret_is_cut(tmp_path: Path) -> None:
    data = b"x" * 90 + SECRET + b"x" * 90
    record(tmp_path, staged(data, 120))
    for size in (100, 110):
        with pytest.raises(CassetteError) as refused:
            record(tmp_path / str(size), staged(data, size))
        assert "FLY_API_TOKEN, cut in pieces, in request 1, request 2" in str(refused.value)
        assert not parts_of(SECRET, str(refused.value).encode())
        assert not (tmp_path / str(size)).exists()


def test_a_tree_that_is_sent_in_pieces_is_cleaned_as_a_whole(tmp_path: Path) -> None:
    packed = gzip.compress(archive("a", SECRET * 50), 1)
    record(tmp_path, staged(packed, 100, "tree"))
    assert list(tmp_path.rglob("*.yaml"))


def test_a_script_that_stands_for_tar_is_looked_into(tmp_path: Path) -> None:
    halves = [base64.b64encode(half).decode() for half in (b"xx" + SECRET[:11], SECRET[11:])]
    lines = "; ".join(f"echo {half}|base64 -d" for half in halves)
    with pytest.raises(CassetteError, match="FLY_API_TOKEN"):
        record(tmp_path, staged(f"{{ {lines}; }} >>a".encode(), 4000, "tree"))


def test_what_is_typed_in_two_goes_is_refused(tmp_path: Path) -> None:
    ways: list[Callable[[bytes], Ask]] = [
        lambda part: ("POST", "/agent/processes/p1-a/stdin", part, {"accepted": len(part)}),
        lambda part: ("POST", "/agent/files/append?path=a", part, {}),
        lambda part: to_runner("write", "p1-a", "t" + part.decode(), "", answer=told()),
        lambda part: to_runner("append", "./a", "t" + part.decode(), answer=told()),
    ]
    for number, way in enumerate(ways):
        with pytest.raises(CassetteError, match="cut in pieces, in request 1, request 2"):
            record(tmp_path / str(number), [way(b"key " + SECRET[:13]), way(SECRET[13:])])


def test_pieces_of_a_file_that_the_agent_read_are_looked_at_together(tmp_path: Path) -> None:
    parts = (b"before " + SECRET[:10], SECRET[10:] + b" after")
    asks: list[Ask] = [
        ("POST", "/agent/files/read", {"path": "a", "offset": at, "size": len(part)}, part)
        for at, part in ((0, parts[0]), (17, parts[1]), (0, parts[0]))
    ]
    record(tmp_path, asks)
    one, two, three = replay(tmp_path, asks)
    assert one + two == b"before <FLY_API_TOKEN***********> after"
    assert three == one, "what was read twice is cut in the same place twice"


def test_variables_in_a_command_over_the_api_are_secret_by_their_names(tmp_path: Path) -> None:
    def asks(password: str) -> list[Ask]:
        variables = f"{quote(f'DB_PASSWORD={password}'.encode()).decode()} LEVEL=3"
        script = f"tcd -- . && unset OLDPWD && _fly env -- {variables} /bin/sh -c 'env'"
        output = block(f"DB_PASSWORD={SECRET.decode()}\n".encode())
        return [
            to_runner(
                *("start", 5, 1, "key", "", "", "", "", ".", script, ""),
                answer=told("p1-0123abcd", 7, 0, 90, 0, 1, "-", blocks=(output, ".\n")),
            )
        ]

    record(tmp_path, asks(SECRET.decode()), secret=b"")
    [answer] = replay(tmp_path, asks("it's another"))
    assert b"DB_PASSWORD=<DB_PASSWORD************" in block_of(answer)


def test_what_was_learned_from_variables_is_a_secret_in_replay_too(tmp_path: Path) -> None:
    body = {"command": ["true"], "env": {"DB_PASSWORD": SECRET.decode()}}
    asks: list[Ask] = [
        ("POST", "/exec", body, {}),
        ("POST", "/exec", {"command": ["login", SECRET.decode()]}, {}),
    ]
    record(tmp_path, asks, secret=b"")
    replay(tmp_path, asks)


def test_a_json_file_keeps_its_layout(tmp_path: Path) -> None:
    content = json.dumps({"a": "\u00fc", "key": SECRET.decode()}, indent=3).encode()
    asks: list[Ask] = [("POST", "/agent/files/read", {"path": "a"}, content)]
    record(tmp_path, asks)
    [again] = replay(tmp_path, asks)
    assert again == content.replace(SECRET, b"<FLY_API_TOKEN***********>")


def test_archives_that_are_not_packed_again_stop_the_save(tmp_path: Path) -> None:
    import bz2
    import lzma
    import zipfile

    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a", SECRET * 9)
    for number, data in enumerate(
        (zipped.getvalue(), bz2.compress(SECRET * 9), lzma.compress(SECRET * 9))
    ):
        with pytest.raises(CassetteError, match="FLY_API_TOKEN in request 1, body"):
            record(tmp_path / str(number), [("PUT", "/agent/files?path=a", data, {})])


def test_a_gzip_file_within_a_tar_keeps_its_place(tmp_path: Path) -> None:
    inner = gzip.compress(b"\n".join([b"some text", SECRET, b"more text"] * 20), 1)
    asks: list[Ask] = [("POST", "/agent/trees/get", {"path": "a"}, archive("a.gz", inner))]
    record(tmp_path, asks)
    [again] = replay(tmp_path, asks)
    with tarfile.open(fileobj=io.BytesIO(again)) as tar:
        content = tar.extractfile("a.gz")
        assert content is not None
        assert b"<FLY_API_TOKEN" in gzip.decompress(content.read())


def test_a_secret_in_the_name_of_a_test_is_refused(tmp_path: Path) -> None:
    key = CassetteKey.test(f"test_a.py::test_x[{SECRET.decode()}]")
    known = {"FLY_API_TOKEN": SECRET.decode()}
    recorder = Recorder(tmp_path, mode="all", scrubber=Scrubber(environ=known))
    with recorder.use(key):
        Http(recorder.transport(Answers([{}])), "https://x").request("GET", M)
    with pytest.raises(CassetteError, match="FLY_API_TOKEN in the name of the test"):
        recorder.finish(key, passed=True)
    assert not list(tmp_path.rglob("*"))


def test_what_is_large_is_looked_through_in_parts(tmp_path: Path) -> None:
    """Parts overlap, and what is compressed is looked into while it is read."""
    scrubber = Scrubber(environ={"FLY_API_TOKEN": SECRET.decode()})
    fill = random.Random(1).randbytes(3 << 20)
    plain = fill + SECRET + fill
    for data in (
        plain,
        gzip.compress(plain, 1),
        b"words before\n" + base64.encodebytes(gzip.compress(fill, 1) + gzip.compress(SECRET * 9)),
        fill[:100] + gzip.compress(fill + SECRET, 1),
    ):
        for size in (100_000, 1 << 20):
            pieces = [data[at : at + size] for at in range(0, len(data), size)]
            assert scrubber.scan(pieces) == {"FLY_API_TOKEN"}
    assert not scrubber.scan([fill, fill])
    recorder = Recorder(tmp_path, mode="all", scrubber=scrubber)
    with recorder.use(TEST):
        http = Http(recorder.transport(Answers([plain])), "https://x")
        http.request("GET", M)
    recorder.finish(TEST, passed=True)
    (blob,) = (tmp_path / "blobs").iterdir()
    assert gzip.decompress(blob.read_bytes()) == plain.replace(
        SECRET, b"<FLY_API_TOKEN***********>"
    )


def test_a_large_body_waits_in_a_file_that_has_no_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    attic = Attic()
    kept, other = Kept(attic), Kept(attic)
    data = bytes(range(256)) * 8000
    for at in range(0, len(data), 100_000):
        kept.append(data[at : at + 100_000])
        other.append(b"x")
    assert not list(tmp_path.iterdir())
    assert isinstance(kept.result(), Kept)
    assert b"".join(kept) == data
    assert kept.part(1_000_000, 700_000) == data[1_000_000:1_700_000]
    assert other.result() == b"x" * 21


def test_a_full_disk_for_large_bodies_is_made_up_for_by_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.pwrite", full)
    kept = Kept(Attic())
    for _ in range(10):
        kept.append(b"x" * 100_000)
    assert b"".join(kept) == b"x" * 1_000_000


def test_a_damaged_large_body_is_written_anew(tmp_path: Path) -> None:
    asks: list[Ask] = [("PUT", "/agent/files?path=a", b"x" * 300_000, {})]
    record(tmp_path, asks)
    (blob,) = (tmp_path / "blobs").iterdir()
    whole = blob.read_bytes()
    blob.write_bytes(whole[:-9])
    record(tmp_path, asks)
    assert blob.read_bytes() == whole
