"""Trees through the channel: everything that a tree can hold, and tars that mean harm."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_flymachines.agent.channel import AgentChannel
from pytest_flymachines.errors import ApiError, SandboxFileNotFound, SandboxNotADirectory
from tests.agent.running import RunningAgent, eventually
from tests.agent.test_files import names

fast = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def here(agent: RunningAgent, channel: AgentChannel, tmp_path: Path) -> AgentChannel:
    """The channel, based in a directory of the test's own."""
    return channel.with_base(os.fsencode(tmp_path))


def snapshot(root: Path) -> dict[bytes, tuple[object, ...]]:
    """Everything below a directory, in a form that compares."""
    found: dict[bytes, tuple[object, ...]] = {}
    top = os.fsencode(root)
    for directory, subdirectories, files in os.walk(top):
        for name in subdirectories + files:
            path = os.path.join(directory, name)
            status = os.lstat(path)
            content: object = None
            if stat.S_ISREG(status.st_mode):
                content = Path(os.fsdecode(path)).read_bytes()
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            when = None if stat.S_ISLNK(status.st_mode) else round(status.st_mtime, 3)
            found[os.path.relpath(path, top)] = (status.st_mode, content, when)
    return found


def make_tar(*members: tuple[str, str, bytes | str], mode: str = "w") -> bytes:
    """A tar of (name, type, content or link target)."""
    buffer = io.BytesIO()
    kinds = {"file": tarfile.REGTYPE, "dir": tarfile.DIRTYPE, "sym": tarfile.SYMTYPE}
    kinds |= {"link": tarfile.LNKTYPE, "fifo": tarfile.FIFOTYPE, "odd": b"Z"}
    with tarfile.open(fileobj=buffer, mode=mode, format=tarfile.PAX_FORMAT) as archive:  # type: ignore[call-overload]
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type = kinds[kind]
            info.mode = 0o755 if kind == "dir" else 0o644
            if isinstance(content, bytes):
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            else:
                info.linkname = content
                archive.addfile(info)
    return buffer.getvalue()


def members(tar: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        return archive.getmembers()


def fill(root: Path) -> None:
    """A tree with one of everything."""
    root.mkdir()
    (root / "empty").mkdir(mode=0o711)
    (root / "sub" / "deeper").mkdir(parents=True)
    (root / "sub" / "script").write_text("#!/bin/sh\n")
    (root / "sub" / "script").chmod(0o4755)
    (root / "sub" / "deeper" / "data").write_bytes(os.urandom(300_000))
    (root / "none").write_text("")
    (root / "sub" / "link").symlink_to("../none")
    (root / "dangling").symlink_to("/no/where")
    os.link(root / "sub" / "script", root / "hard")
    os.mkfifo(root / "fifo")
    Path(os.fsdecode(os.fsencode(root) + b"/not \xff utf-8\n")).write_text("x")
    (root / ("n" * 200)).write_text("long name")
    os.utime(root / "none", (1e9, 1e9 + 0.25))
    os.utime(root / "sub", (1e9, 1e9))


def test_a_tree_survives_the_way_there_and_back(here: AgentChannel, tmp_path: Path) -> None:
    fill(tmp_path / "source")
    tar = b"".join(here.get_tree(b"source"))
    here.put_tree(b"target/deep", [tar])
    assert snapshot(tmp_path / "target/deep") == snapshot(tmp_path / "source")
    script, hard = (tmp_path / "target/deep" / n for n in ("sub/script", "hard"))
    assert script.stat().st_ino == hard.stat().st_ino
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    assert members(b"".join(here.get_tree(b"target/deep")))[0].name == "."


@fast
@given(tree=st.dictionaries(st.lists(names, min_size=1, max_size=3).map(tuple), st.binary()))
def test_any_names_and_bytes(
    here: AgentChannel, tmp_path_factory: pytest.TempPathFactory, tree: dict[tuple[bytes], bytes]
) -> None:
    top = os.fsencode(tmp_path_factory.mktemp("any"))
    for parts, data in tree.items():
        path = os.path.join(top, b"source", *parts)
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            Path(os.fsdecode(path)).write_bytes(data)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            continue  # another entry has the name as a file or directory
    os.makedirs(os.path.join(top, b"source"), exist_ok=True)
    here.put_tree(os.path.join(top, b"target"), here.get_tree(os.path.join(top, b"source")))
    root = Path(os.fsdecode(top))
    assert snapshot(root / "target") == snapshot(root / "source")


def test_a_large_tree_is_streamed(here: AgentChannel, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    for number in range(12):
        (tmp_path / "source" / f"f{number}").write_bytes(os.urandom(1 << 20))
    pieces = list(here.get_tree(b"source"))
    assert len(pieces) > 10
    here.put_tree(b"target", iter(pieces))
    assert snapshot(tmp_path / "target") == snapshot(tmp_path / "source")


def test_a_single_file_is_a_tree_of_one(here: AgentChannel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    (tmp_path / "link").symlink_to("file")
    for name in (b"file", b"link"):
        found = members(b"".join(here.get_tree(name)))
        assert [(m.name, m.isreg(), m.size) for m in found] == [(name.decode(), True, 7)]


def test_excluded_names_and_paths_are_left_out(here: AgentChannel, tmp_path: Path) -> None:
    for name in ("a.pyc", "s/b.pyc", "s/t/c.txt", "s/keep", "node_modules/x", "s/node_modules/y"):
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_text("")
    exclude = ["*.pyc", "node_modules", "/s/t/*.txt", "\udcff"]
    found = members(b"".join(here.get_tree(b"tree", exclude=exclude)))
    assert [member.name for member in found] == [".", "s", "s/keep", "s/t"]


def test_entries_replace_those_of_the_target_and_others_stay(
    here: AgentChannel, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    (target / "dir").mkdir(parents=True)
    target.chmod(0o750)
    (target / "other").write_text("stays")
    (target / "dir" / "other").write_text("stays")
    (target / "was-dir" / "x").mkdir(parents=True)
    (target / "was-file").write_text("old")
    (target / "outside").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    tar = make_tar(
        (".", "dir", ""),
        ("dir", "dir", ""),
        ("dir/new", "file", b"new"),
        ("was-dir", "file", b"now a file"),
        ("was-file", "dir", ""),
        ("was-file/inner", "file", b"1"),
        ("outside", "dir", ""),
        ("outside/inner", "file", b"2"),
    )
    here.put_tree(b"target", [tar])
    assert (target / "other").read_text() == "stays"
    assert (target / "dir" / "other").read_text() == "stays"
    assert (target / "dir" / "new").read_text() == "new"
    assert (target / "was-dir").read_text() == "now a file"
    assert (target / "was-file" / "inner").read_text() == "1"
    assert (target / "outside" / "inner").read_text() == "2"
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert stat.S_IMODE(target.stat().st_mode) == 0o750


def test_a_target_behind_a_symlink_is_filled(here: AgentChannel, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    here.put_tree(b"link", [make_tar(("f", "file", b"1"))])
    assert (tmp_path / "real" / "f").read_text() == "1"
    assert (tmp_path / "link").is_symlink()


EVIL: dict[str, list[tuple[str, str, bytes | str]]] = {
    "parent": [("../evil", "file", b"x")],
    "parent in the middle": [("a/../../evil", "file", b"x")],
    "absolute": [("/tmp/evil-absolute", "file", b"x")],
    "through a symlink": [("s", "sym", ".."), ("s/evil", "file", b"x")],
    "symlink replaced by itself": [("s", "sym", "/tmp"), ("s", "dir", ""), ("s/e", "file", b"x")],
    "hard link out": [("h", "link", "/etc/passwd")],
    "hard link up": [("h", "link", "../victim")],
    "hard link to a stranger": [("d/h", "link", "nothing/here")],
    "hard link through a symlink": [("s", "sym", ".."), ("h", "link", "s/victim")],
    "a directory and a file": [("d", "dir", ""), ("d", "file", b"x")],
    "a file as a directory": [("f", "file", b"x"), ("f/g", "file", b"x")],
    "unknown type": [("z", "odd", "")],
}


@pytest.mark.parametrize("evil", EVIL.values(), ids=EVIL.keys())
def test_members_that_lead_out_are_refused_and_nothing_changes(
    here: AgentChannel, tmp_path: Path, evil: list[tuple[str, str, bytes | str]]
) -> None:
    (tmp_path / "victim").write_text("secret")
    (tmp_path / "target").mkdir()
    tar = make_tar(("first", "file", b"x"), *evil)
    with pytest.raises(ApiError) as caught:
        here.put_tree(b"target", [tar])
    assert caught.value.status == 400
    assert caught.value.message.startswith(("member ", "the link target "))
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["target", "victim"]
    assert not Path("/tmp/evil-absolute").exists()


@pytest.mark.parametrize(
    "body",
    [b"this is no tar", make_tar(("f", "file", b"x" * 5000))[:3000], b"\xff" * 10240],
    ids=["text", "cut", "noise"],
)
def test_what_is_no_tar_changes_nothing(here: AgentChannel, tmp_path: Path, body: bytes) -> None:
    with pytest.raises(ApiError, match="tar"):
        here.put_tree(b"target", [body])
    assert list(tmp_path.iterdir()) == []


def test_an_empty_tar_makes_the_directory(here: AgentChannel, tmp_path: Path) -> None:
    here.put_tree(b"a/b", [make_tar()])
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_source_that_breaks_changes_nothing(here: AgentChannel, tmp_path: Path) -> None:
    def pieces() -> Iterator[bytes]:
        yield make_tar(("f", "file", b"x"))
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError):
        here.put_tree(b"target", pieces())
    assert list(tmp_path.iterdir()) == []


def test_a_large_source_that_breaks_on_its_way_changes_nothing(
    here: AgentChannel, agent: RunningAgent, tmp_path: Path
) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "f").write_text("before")

    class Breaking:
        def __iter__(self) -> Iterator[bytes]:
            yield make_tar(("f", "file", b"x" * (3 << 20)))[:-20_000]
            raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError):
        here.put_tree(b"target", Breaking())
    eventually(lambda: [p.name for p in tmp_path.iterdir()] == ["target"])
    assert (tmp_path / "target" / "f").read_text() == "before"
    assert "Traceback" not in agent.log()


def test_a_new_tree_appears_whole_or_not_at_all(here: AgentChannel, tmp_path: Path) -> None:
    """Watched while it is put in place, with the modes and times that it is to have."""
    tree = [(f"d{n}", "dir", "") for n in range(200)]
    seen = []
    watching = threading.Event()

    def watch() -> None:
        watching.set()
        while not (names := list((tmp_path / "new").glob("*"))):
            pass
        seen.append(len(names))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    watching.wait()
    here.put_tree(b"new", [make_tar(*tree)])
    thread.join(30)
    assert seen == [200]


def test_two_may_fill_the_same_new_tree(here: AgentChannel, tmp_path: Path) -> None:
    for attempt in range(20):
        target = b"both-%d" % attempt
        tars = [make_tar(*((f"{who}{n}", "file", b"x") for n in range(20))) for who in "ab"]
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda tar, target=target: here.put_tree(target, [tar]), tars))
        assert len(list((tmp_path / os.fsdecode(target)).iterdir())) == 40


def test_directories_that_may_not_be_written_to_are_made_too(
    here: AgentChannel, tmp_path: Path
) -> None:
    (tmp_path / "source" / "locked" / "inner").mkdir(parents=True)
    (tmp_path / "source" / "locked" / "inner" / "f").write_text("1")
    for name in ("locked/inner", "locked", ""):
        (tmp_path / "source" / name).chmod(0o555)
        os.utime(tmp_path / "source" / name, (5, 5))
    tar = b"".join(here.get_tree(b"source"))
    (tmp_path / "old").mkdir()
    here.put_tree(b"new", [tar])
    here.put_tree(b"old", [tar])
    wanted = snapshot(tmp_path / "source")
    assert snapshot(tmp_path / "new") == snapshot(tmp_path / "old") == wanted
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o555
    assert (tmp_path / "new").stat().st_mtime == 5


def test_wrong_places_are_file_errors(here: AgentChannel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SandboxNotADirectory):
        here.put_tree(b"file", [make_tar()])
    with pytest.raises(SandboxFileNotFound):
        list(here.get_tree(b"nowhere"))
    with pytest.raises(ApiError, match="NUL"):
        list(here.get_tree(b"a\0b"))
