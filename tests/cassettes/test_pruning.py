"""What is deleted while others record, and what is left of recordings that were killed."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_flymachines._http import Http, Request, Response, Transport
from pytest_flymachines.cassettes import CassetteKey, Recorder, Scrubber
from pytest_flymachines.cassettes.bodies import write_whole
from pytest_flymachines.cassettes.catalog import Catalog
from pytest_flymachines.cassettes.locks import alone, saving, sweep, temporaries
from pytest_flymachines.cassettes.pruning import Needless, delete
from pytest_flymachines.errors import CassetteError

URL = "/v1/apps/a/machines/m/exec"


class Large(Transport):
    """Answers with what it was asked for, many times."""

    def handle_request(self, request: Request) -> Response:
        return Response(200, content=request.content * 50_000)


def record(directory: Path, name: str, text: str) -> None:
    recorder = Recorder(directory, mode="all", scrubber=Scrubber(environ={}))
    key = CassetteKey.test(f"test_a.py::{name}")
    with recorder.use(key):
        http = Http(recorder.transport(Large()), "http://x")
        http.request("PUT", f"{URL}?{name}", content=text.encode())
    recorder.finish(key, passed=True)


def everything(directory: Path) -> list[Needless]:
    """All that is no cassette, as if nobody needed it."""
    found = []
    for path in [*(directory / "blobs").glob("*"), *temporaries(directory)]:
        try:
            stat = path.lstat()
        except FileNotFoundError:
            continue
        found.append(Needless(path, stat.st_ino, stat.st_mtime_ns))
    return found


@contextmanager
def meanwhile(*works: Callable[[], object]) -> Iterator[list[Future[None]]]:
    """Threads that do their work over and over; what one raised is raised in the end."""
    ended = threading.Event()

    def repeat(work: Callable[[], object]) -> None:
        while not ended.is_set():
            work()

    with ThreadPoolExecutor(len(works)) as pool:
        futures = [pool.submit(repeat, work) for work in works]
        try:
            yield futures
        finally:
            ended.set()
    for future in futures:
        future.result()


def test_two_prunes_take_nothing_from_two_recordings(tmp_path: Path) -> None:
    """Both record the same two bodies in turn, so that each is often needed by nobody."""
    record(tmp_path, "test_0", "before")

    def prune() -> None:
        delete(tmp_path, everything(tmp_path))

    with meanwhile(prune, prune, lambda: record(tmp_path, "test_1", "same text")) as others:
        for turn in range(40):
            record(tmp_path, "test_0", ("same text", "other text")[turn % 2])
            assert not any(other.done() for other in others)
    problems = [entry.problem for entry in Catalog(tmp_path).entries()]
    assert problems == ["", ""]
    prune()
    assert len(list((tmp_path / "blobs").iterdir())) == 2
    assert temporaries(tmp_path) == []


def test_a_body_that_two_cassettes_share_stays_while_one_of_them_does(tmp_path: Path) -> None:
    for name in ("test_0", "test_1"):
        record(tmp_path, name, "shared")
    record(tmp_path, "test_2", "its own text")
    assert len(list((tmp_path / "blobs").iterdir())) == 2
    (tmp_path / "test_a.py" / "test_0.yaml").unlink()
    assert delete(tmp_path, everything(tmp_path)) == []
    (tmp_path / "test_a.py" / "test_2.yaml").unlink()
    assert len(delete(tmp_path, everything(tmp_path))) == 1
    assert Catalog(tmp_path).read(tmp_path / "test_a.py" / "test_1.yaml").problem == ""


def test_a_cassette_that_was_recorded_again_is_not_deleted(tmp_path: Path) -> None:
    record(tmp_path, "test_0", "old")
    path = tmp_path / "test_a.py" / "test_0.yaml"
    stat = path.lstat()
    told = Needless(path, stat.st_ino, stat.st_mtime_ns)
    record(tmp_path, "test_0", "new")
    assert delete(tmp_path, [told]) == []
    assert path.exists()


def test_a_recording_removes_what_a_killed_one_has_left(tmp_path: Path) -> None:
    record(tmp_path, "test_0", "large text")
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    half = [tmp_path / where / f".{os.urandom(8).hex()}.tmp" for where in ("blobs", "test_a.py")]
    for path in half:
        path.write_bytes(b"half")
    theirs = tmp_path / ".editor.tmp"
    theirs.write_bytes(b"the user's")
    with saving(tmp_path):  # somebody records
        sweep(tmp_path)
        assert all(path.exists() for path in half)
    record(tmp_path, "test_0", "large text")
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == {*before, theirs}


def test_what_is_being_written_is_not_deleted(tmp_path: Path) -> None:
    half = tmp_path / f".{os.urandom(8).hex()}.tmp"
    half.write_bytes(b"half")
    told = everything(tmp_path)
    deleted: list[Path] = []
    with saving(tmp_path):
        prune = threading.Thread(target=lambda: deleted.extend(delete(tmp_path, told)))
        prune.start()
        with pytest.raises(BlockingIOError), alone(tmp_path, wait=False):
            pass
        half.rename(tmp_path / "test_a.yaml")
    prune.join(60)
    assert deleted == []
    assert (tmp_path / "test_a.yaml").read_bytes() == b"half"


def test_what_cannot_be_locked_is_told_and_nothing_is_deleted(tmp_path: Path) -> None:
    with pytest.raises(CassetteError, match="deleted only while no recording writes there"):
        delete(tmp_path / "gone", [])


def test_ctrl_c_while_a_file_is_written_leaves_the_old_one_alone(tmp_path: Path) -> None:
    path = tmp_path / "test_a.py" / "test_x.yaml"
    write_whole(path, [b"old"])

    def pieces() -> Iterator[bytes]:
        yield b"new"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(path, pieces())
    assert path.read_bytes() == b"old"
    assert temporaries(tmp_path) == []
