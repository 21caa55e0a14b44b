"""Paths with pathlib's verbs, the same over every way."""

from __future__ import annotations

import pathlib
from pathlib import PurePosixPath

import pytest

from pytest_flymachines.errors import (
    SandboxFileError,
    SandboxFileExists,
    SandboxFileNotFound,
    SandboxIsADirectory,
    SandboxNotADirectory,
)
from pytest_flymachines.sandbox import Sandbox, SandboxPath


class TestPure:
    def test_it_is_a_pure_path(self, sandbox: Sandbox) -> None:
        path = sandbox.path("a/b.tar.gz")
        assert isinstance(path, PurePosixPath)
        assert isinstance(path, SandboxPath)
        assert (path.name, path.stem, path.suffix, path.suffixes) == (
            "b.tar.gz",
            "b.tar",
            ".gz",
            [".tar", ".gz"],
        )
        assert path == PurePosixPath("a/b.tar.gz")
        assert path.parts == ("a", "b.tar.gz")

    def test_derived_paths_stay_in_the_machine(self, sandbox: Sandbox) -> None:
        sandbox.write_file("a/b/c", "x")
        path = sandbox.path("a")
        derived = [
            path / "b" / "c",
            path.joinpath("b", "c"),
            (path / "b" / "x").with_name("c"),
            path / PurePosixPath("b/c"),
            (path / "b/c/d").parent,
            (path / "b/c/d").parents[0],
            sandbox.path("/") / sandbox.workdir / "a/b/c",
        ]
        assert [p.read_text() for p in derived] == ["x"] * len(derived)
        assert (path / "b/c").relative_to(path).parts == ("b", "c")
        assert "a" / sandbox.path("b") == PurePosixPath("a/b")

    def test_it_is_hashable_and_sorts(self, sandbox: Sandbox) -> None:
        assert len({sandbox.path("a"), sandbox.path("a"), sandbox.path("b")}) == 2
        assert min(sandbox.path("b"), sandbox.path("a")).name == "a"

    def test_it_does_not_pass_for_a_local_path(self, sandbox: Sandbox) -> None:
        with pytest.raises(TypeError, match=r"is a path in machine .*read_text"):
            open(sandbox.path("/etc/passwd"))  # noqa: PTH123, SIM115 - the point of the test
        with pytest.raises(TypeError):
            pathlib.Path("/") / sandbox.path("etc").__fspath__()

    def test_bytes_and_repr(self, sandbox: Sandbox) -> None:
        assert bytes(sandbox.path("\udcff")) == b"\xff"
        assert repr(sandbox.path("a b")) == "SandboxPath('a b')"

    def test_the_default_is_the_workspace(self, sandbox: Sandbox) -> None:
        sandbox.write_file("file", "x")
        assert [p.name for p in sandbox.path().iterdir()] == ["file"]


class TestReading:
    def test_text_and_bytes(self, sandbox: Sandbox) -> None:
        path = sandbox.path("file")
        assert path.write_text("é\n") == 2
        assert path.read_text() == "é\n"
        assert path.write_bytes(b"\xff") == 1
        assert path.read_bytes() == b"\xff"

    def test_is_what(self, sandbox: Sandbox) -> None:
        sandbox.exec("touch file; mkdir dir; ln -s file link; ln -s dir dirlink; mkfifo fifo")

        def answers(name: str) -> list[bool]:
            path = sandbox.path(name)
            return [path.exists(), path.is_file(), path.is_dir(), path.is_symlink(), path.is_fifo()]

        assert answers("file") == [True, True, False, False, False]
        assert answers("dir") == [True, False, True, False, False]
        assert answers("link") == [True, True, False, True, False]
        assert answers("dirlink") == [True, False, True, True, False]
        assert answers("fifo") == [True, False, False, False, True]
        assert answers("missing") == [False] * 5
        assert answers("file/below") == [False] * 5
        assert not sandbox.path("file").is_socket()

    def test_stat_and_lstat(self, sandbox: Sandbox) -> None:
        sandbox.write_file("file", "12345")
        sandbox.path("link").symlink_to("file")
        assert sandbox.path("link").stat().st_size == 5
        assert sandbox.path("link").lstat().kind == "symlink"

    def test_owner_and_group(self, as_root: Sandbox) -> None:
        as_root.write_file("file", "")
        assert (as_root.path("file").owner(), as_root.path("file").group()) == ("root", "root")

    def test_readlink(self, sandbox: Sandbox) -> None:
        sandbox.path("link").symlink_to("a b\n/c")
        assert sandbox.path("link").readlink() == PurePosixPath("a b\n/c")
        sandbox.write_file("file", "")
        with pytest.raises(SandboxFileError) as info:
            sandbox.path("file").readlink()
        assert info.value.errno == 22

    def test_iterdir(self, sandbox: Sandbox) -> None:
        sandbox.exec("mkdir d; touch d/b d/a")
        assert [str(p) for p in sandbox.path("d").iterdir()] == ["d/a", "d/b"]
        with pytest.raises(SandboxFileNotFound):
            list(sandbox.path("missing").iterdir())

    def test_glob_and_rglob(self, sandbox: Sandbox) -> None:
        sandbox.exec("mkdir -p d/e; touch d/a.py d/e/b.py d/c.txt")
        assert [str(p) for p in sandbox.path("d").glob("*.py")] == ["d/a.py"]
        assert [str(p) for p in sandbox.path("d").rglob("*.py")] == ["d/a.py", "d/e/b.py"]
        assert [p.read_text() for p in sandbox.path("d").rglob("*.py")] == ["", ""]
        for pattern in ("", "/etc/*"):
            with pytest.raises(ValueError, match="no relative pattern"):
                list(sandbox.path("d").glob(pattern))


class TestWriting:
    def test_no_parents_are_made(self, sandbox: Sandbox) -> None:
        with pytest.raises(SandboxFileNotFound):
            sandbox.path("missing/file").write_text("x")

    def test_touch(self, sandbox: Sandbox) -> None:
        path = sandbox.path("file")
        path.touch()
        assert path.stat().mode == 0o644
        sandbox.exec("touch -d @1000 file")
        path.touch()
        assert path.stat().mtime > 1000
        with pytest.raises(SandboxFileExists):
            path.touch(exist_ok=False)
        path.unlink()
        path.touch(mode=0o600)
        assert path.stat().mode == 0o600

    def test_mkdir(self, sandbox: Sandbox) -> None:
        sandbox.path("a/b").mkdir(parents=True)
        sandbox.path("a/b").mkdir(exist_ok=True)
        with pytest.raises(SandboxFileExists):
            sandbox.path("a/b").mkdir()
        assert sandbox.path("a/b").is_dir()

    def test_unlink(self, sandbox: Sandbox) -> None:
        sandbox.exec("touch file; mkdir dir; ln -s dir link")
        sandbox.path("file").unlink()
        sandbox.path("link").unlink()
        with pytest.raises(SandboxIsADirectory):
            sandbox.path("dir").unlink()
        with pytest.raises(SandboxFileNotFound):
            sandbox.path("file").unlink()
        sandbox.path("file").unlink(missing_ok=True)
        assert [p.name for p in sandbox.path().iterdir()] == ["dir"]

    def test_rmdir(self, sandbox: Sandbox) -> None:
        sandbox.exec("touch file; mkdir -p dir full/inside")
        sandbox.path("dir").rmdir()
        with pytest.raises(SandboxNotADirectory):
            sandbox.path("file").rmdir()
        with pytest.raises(SandboxFileError) as info:
            sandbox.path("full").rmdir()
        assert info.value.errno == 39

    def test_rename_and_replace(self, sandbox: Sandbox) -> None:
        sandbox.write_file("a", "x")
        moved = sandbox.path("a").rename("b")
        assert moved.read_text() == "x"
        assert moved.replace(sandbox.path("c")).read_text() == "x"
        assert [p.name for p in sandbox.path().iterdir()] == ["c"]

    @pytest.mark.parametrize("mode", [0o600, 0o755, 0o000, 0o4711, 0o1777])
    def test_chmod(self, sandbox: Sandbox, mode: int) -> None:
        sandbox.write_file("file", "x")
        sandbox.path("file").chmod(mode)
        assert sandbox.path("file").stat().mode == mode

    def test_chmod_follows_symlinks(self, sandbox: Sandbox) -> None:
        sandbox.write_file("file", "x")
        sandbox.path("link").symlink_to("file")
        sandbox.path("link").chmod(0o700)
        assert sandbox.path("file").stat().mode == 0o700

    def test_symlink_to(self, sandbox: Sandbox) -> None:
        sandbox.path("link").symlink_to(sandbox.path("target"))
        assert sandbox.exec("readlink link").stdout == "target\n"
        with pytest.raises(SandboxFileExists):
            sandbox.path("link").symlink_to("other")
        sandbox.mkdir("dir")
        with pytest.raises(SandboxFileExists):
            sandbox.path("dir").symlink_to("other")
        assert sandbox.list_files("dir") == []

    def test_chmod_of_what_is_missing(self, sandbox: Sandbox) -> None:
        with pytest.raises(SandboxFileNotFound):
            sandbox.path("missing").chmod(0o600)
