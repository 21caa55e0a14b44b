"""Files through the channel, in the real agent."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_flymachines.agent.channel import AgentChannel
from pytest_flymachines.errors import (
    SandboxFileError,
    SandboxFileExists,
    SandboxFileNotFound,
    SandboxIsADirectory,
    SandboxNotADirectory,
)
from tests.agent.running import RunningAgent, eventually

fast = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
names = (
    st.binary(min_size=1, max_size=30)
    .map(lambda name: name.replace(b"\0", b"\n").replace(b"/", b"\xff"))
    .filter(lambda name: name not in (b".", b".."))
)


@pytest.fixture
def here(agent: RunningAgent, channel: AgentChannel, tmp_path: Path) -> AgentChannel:
    """The channel, based in a directory of the test's own."""
    return channel.with_base(os.fsencode(tmp_path))


def read(channel: AgentChannel, path: bytes, **options: int) -> bytes:
    return b"".join(channel.read(path, **options))


@fast
@given(name=names, data=st.binary(max_size=2000))
def test_any_bytes_under_any_name(
    here: AgentChannel, tmp_path: Path, name: bytes, data: bytes
) -> None:
    assert here.write(name, [data], mode=None, parents=False) == len(data)
    path = os.path.join(os.fsencode(tmp_path), name)
    assert Path(os.fsdecode(path)).read_bytes() == data
    assert read(here, name) == data
    text = name.decode("utf-8", "surrogateescape")
    assert here.stat(name).name == text
    assert [info.name for info in here.listdir(b".")] == [text]
    assert [info.name for info in here.walk(b"")] == [text]
    here.remove(name, recursive=False, missing_ok=False)
    with pytest.raises(SandboxFileNotFound) as caught:
        read(here, name)
    assert os.fsencode(caught.value.filename) == path


def test_a_relative_base_is_the_agents(channel: AgentChannel, agent: RunningAgent) -> None:
    channel.write(b"deep/down/file", [b"1"], mode=None, parents=True)
    assert (agent.base / "deep/down/file").read_bytes() == b"1"
    assert read(channel.with_base(b"deep"), b"down/file") == b"1"
    assert read(channel.with_base(b"elsewhere").with_base(b"deep"), b"down/file") == b"1"


def test_a_large_file_comes_and_goes_in_pieces(here: AgentChannel, tmp_path: Path) -> None:
    data = os.urandom(1 << 20) * 20 + b"end"

    def pieces() -> Iterator[bytes]:
        for at in range(0, len(data), 1_000_000):
            yield data[at : at + 1_000_000]

    assert here.write(b"large", pieces(), mode=0o640, parents=False) == len(data)
    assert (tmp_path / "large").read_bytes() == data
    assert stat.S_IMODE((tmp_path / "large").stat().st_mode) == 0o640
    digest = hashlib.sha256()
    for piece in here.read(b"large"):
        digest.update(piece)
    assert digest.digest() == hashlib.sha256(data).digest()
    assert read(here, b"large", offset=len(data) - 5) == data[-5:]
    assert read(here, b"large", offset=3, size=4) == data[3:7]
    assert read(here, b"large", offset=3, size=5_000_000) == data[3:5_000_003]
    assert read(here, b"large", offset=len(data) + 10) == b""


def test_a_reader_may_stop_in_the_middle(here: AgentChannel, agent: RunningAgent) -> None:
    here.write(b"large", [bytes(30 << 20)], mode=None, parents=False)
    pieces = here.read(b"large")
    assert next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert read(here, b"large", size=5) == bytes(5)


def test_files_without_a_size_are_read_to_their_end(here: AgentChannel) -> None:
    assert read(here, b"/proc/self/cmdline").count(b"agent.pyz") == 1
    assert read(here, b"/dev/null") == b""
    assert read(here, b"/dev/zero", size=70_000) == bytes(70_000)


def test_write_keeps_mode_and_follows_symlinks(here: AgentChannel, tmp_path: Path) -> None:
    (tmp_path / "script").write_text("old")
    (tmp_path / "script").chmod(0o751)
    (tmp_path / "link").symlink_to("script")
    here.write(b"link", [b"new"], mode=None, parents=False)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "script").read_text() == "new"
    assert stat.S_IMODE((tmp_path / "script").stat().st_mode) == 0o751
    here.write(b"fresh", [], mode=None, parents=False)
    assert stat.S_IMODE((tmp_path / "fresh").stat().st_mode) == 0o644
    (tmp_path / "dangling").symlink_to("made-by-write")
    here.write(b"dangling", [b"x"], mode=0o600, parents=False)
    assert (tmp_path / "made-by-write").read_text() == "x"
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".flymachines")] == []


def test_what_cannot_be_replaced_is_written_in_place(here: AgentChannel, tmp_path: Path) -> None:
    here.write(b"/dev/null", [b"gone"], mode=None, parents=False)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    here.write(b"/proc/self/comm", [b"renamed"], mode=None, parents=False)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(SandboxFileError, match="No such device"):
        here.write(b"fifo", [b"nobody reads"], mode=None, parents=False)


def test_failing_writes_leave_the_old_file(here: AgentChannel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")

    def broken() -> Iterator[bytes]:
        yield b"half"
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError):
        here.write(b"file", broken(), mode=None, parents=False)
    assert (tmp_path / "file").read_text() == "old"
    with pytest.raises(SandboxFileNotFound, match="missing/x"):
        here.write(b"missing/x", [b"1"], mode=None, parents=False)
    with pytest.raises(SandboxIsADirectory):
        here.write(b"", [b"1"], mode=None, parents=False)
    with pytest.raises(SandboxNotADirectory):
        here.write(b"file/x", [b"1"], mode=None, parents=True)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_append_makes_and_extends(here: AgentChannel, tmp_path: Path) -> None:
    here.append(b"log", b"one\n")
    here.append(b"log", b"\xfftwo\n")
    assert (tmp_path / "log").read_bytes() == b"one\n\xfftwo\n"


def test_stat_says_what_is_there(here: AgentChannel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("12345")
    os.utime(tmp_path / "file", (1000, 1234.5))
    (tmp_path / "file").chmod(0o4711)
    (tmp_path / "link").symlink_to("file")
    info = here.stat(b"file")
    assert (info.name, info.kind, info.size, info.mode) == ("file", "file", 5, 0o4711)
    assert (info.mtime, info.uid, info.gid, info.target) == (1234.5, os.getuid(), os.getgid(), None)
    assert here.stat(b"link").size == 5
    unfollowed = here.stat(b"link", follow=False)
    assert (unfollowed.kind, unfollowed.target) == ("symlink", "file")
    assert here.stat(b"").kind == "directory"
    assert here.stat(b"/").name == "/"
    assert here.stat(b"/dev/null").kind == "char"
    os.mkfifo(tmp_path / "fifo")
    assert here.stat(b"fifo").kind == "fifo"


def test_listings_are_sorted_and_do_not_follow(here: AgentChannel, tmp_path: Path) -> None:
    for name in ("b", "a", ".hidden", "c"):
        (tmp_path / name).mkdir()
    (tmp_path / "a" / "inner").write_text("")
    (tmp_path / "loop").symlink_to(".")
    assert [i.name for i in here.listdir(b".")] == [".hidden", "a", "b", "c", "loop"]
    assert [i.name for i in here.walk(b".")] == [".hidden", "a", "a/inner", "b", "c", "loop"]
    with pytest.raises(SandboxNotADirectory):
        here.listdir(b"a/inner")
    with pytest.raises(SandboxNotADirectory):
        here.walk(b"a/inner")
    with pytest.raises(SandboxFileNotFound):
        here.walk(b"nowhere")


def test_walk_takes_the_parts_of_a_glob(here: AgentChannel, tmp_path: Path) -> None:
    for name in ("x.py", "a/y.py", "a/b/z.py", "a/b/z.txt", ".d/w.py", "a/B.PY"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "link").symlink_to("a")

    def walk(*parts: str) -> list[str]:
        return [info.name for info in here.walk(b".", parts)]

    assert walk("**", "*.py") == [".d/w.py", "a/b/z.py", "a/y.py", "x.py"]
    assert walk("*.py") == ["x.py"]
    assert walk("*", "*.py") == [".d/w.py", "a/y.py"]
    assert walk("a", "**") == ["a/B.PY", "a/b", "a/b/z.py", "a/b/z.txt", "a/y.py"]
    assert walk("a", "**", "b", "z.[!p]*") == ["a/b/z.txt"]
    assert walk("**", "**", "z.py") == ["a/b/z.py"]
    assert walk("nothing", "*") == []


def test_directories_are_made_and_removed(here: AgentChannel, tmp_path: Path) -> None:
    here.mkdir(b"one", mode=0o700, parents=False, exist_ok=False)
    assert stat.S_IMODE((tmp_path / "one").stat().st_mode) == 0o700
    with pytest.raises(SandboxFileExists):
        here.mkdir(b"one", mode=0o777, parents=False, exist_ok=False)
    here.mkdir(b"one", mode=0o777, parents=True, exist_ok=True)
    here.mkdir(b"p/q/r", mode=0o777, parents=True, exist_ok=False)
    with pytest.raises(SandboxFileNotFound):
        here.mkdir(b"m/n", mode=0o777, parents=False, exist_ok=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(SandboxFileExists):
        here.mkdir(b"file", mode=0o777, parents=False, exist_ok=True)
    with pytest.raises(SandboxFileError, match="not empty"):
        here.remove(b"p", recursive=False, missing_ok=False)
    here.remove(b"p", recursive=True, missing_ok=False)
    with pytest.raises(SandboxFileNotFound):
        here.remove(b"p", recursive=True, missing_ok=False)
    here.remove(b"p", recursive=True, missing_ok=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "one"]


def test_a_symlink_is_removed_not_what_it_points_to(here: AgentChannel, tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "kept").write_text("")
    here.symlink(b"link", b"dir")
    here.remove(b"link", recursive=True, missing_ok=False)
    assert (tmp_path / "dir" / "kept").exists()


def test_rename_chmod_symlink_touch(here: AgentChannel, tmp_path: Path) -> None:
    here.touch(b"a", mode=0o600, exist_ok=False)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600
    os.utime(tmp_path / "a", (1, 1))
    here.touch(b"a", mode=0o644, exist_ok=True)
    assert (tmp_path / "a").stat().st_mtime > 1
    with pytest.raises(SandboxFileExists):
        here.touch(b"a", mode=0o644, exist_ok=False)
    (tmp_path / "b").write_text("replaced")
    here.rename(b"a", b"b")
    assert (tmp_path / "b").read_text() == ""
    (tmp_path / "dir").mkdir()
    with pytest.raises(SandboxIsADirectory):
        here.rename(b"b", b"dir")
    here.chmod(b"b", 0o1777)
    assert here.stat(b"b").mode == 0o1777
    here.symlink(b"s", b"any\xffthing")
    assert os.readlink(os.fsencode(tmp_path) + b"/s") == b"any\xffthing"
    with pytest.raises(SandboxFileExists):
        here.symlink(b"s", b"again")


def test_a_file_that_is_replaced_during_a_read_is_not_mixed(
    here: AgentChannel, agent: RunningAgent, tmp_path: Path
) -> None:
    """What was opened is read to its end, as with any local file."""
    here.write(b"f", [b"a" * (8 << 20)], mode=None, parents=False)
    pieces = here.read(b"f")
    got = next(pieces)
    here.write(b"f", [b"b" * (8 << 20)], mode=None, parents=False)
    got += b"".join(pieces)
    assert got == b"a" * (8 << 20)


def test_reads_leave_no_descriptor_open(here: AgentChannel, agent: RunningAgent) -> None:
    here.write(b"f", [b"x" * (4 << 20)], mode=None, parents=False)
    before = agent.descriptors()
    for _ in range(20):
        read(here, b"f")
        with pytest.raises(SandboxIsADirectory):
            read(here, b".")
    eventually(lambda: agent.descriptors() <= before + 1)
