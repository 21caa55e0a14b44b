"""Files of the machine, the same over every way."""

from __future__ import annotations

import hashlib
import os
import time

import pytest

from pytest_flymachines.errors import (
    SandboxFileError,
    SandboxFileExists,
    SandboxFileNotFound,
    SandboxIsADirectory,
    SandboxNotADirectory,
)
from pytest_flymachines.sandbox import Sandbox

NAMES = [
    "plain.txt",
    "with space",
    " leading and trailing ",
    "new\nline",
    "trailing\n",
    "tab\t",
    "quote'\"",
    "back\\slash",
    "$HOME",
    "`id`",
    "*",
    "[a]",
    "?",
    "-n",
    "--help",
    "#comment",
    "~",
    ".hidden",
    "...",
    "é日本🎉",
    "\udcff\udcfe",
    "\x01\x7f",
    "a" * 255,
]


class TestContent:
    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"\n",
            b"no newline",
            b"text\n",
            "é🎉\n".encode(),
            b"\0",
            b"\xff\xfe\0\r\n",
            bytes(range(256)),
            b"%s %b \\0101 \\n $HOME `id`",
            b"t",
            b"@1",
            b"-" * 3,
            b"x" * 8192,
            b"\r\n" * 700,
        ],
        ids=lambda c: f"{len(c)}-{hashlib.sha256(c).hexdigest()[:6]}",
    )
    def test_bytes_arrive_and_come_back(self, sandbox: Sandbox, content: bytes) -> None:
        assert sandbox.write_file("file", content) == len(content)
        assert sandbox.read_file("file") == content
        digest = sandbox.exec("sha256sum <file").stdout.split()[0]
        assert digest == hashlib.sha256(content).hexdigest()

    @pytest.mark.parametrize("size", [11_999, 65_536, 1_048_575, 1_048_576, 1_048_577])
    def test_sizes_around_the_edges_of_a_request(self, sandbox: Sandbox, size: int) -> None:
        content = (b"0123456789abcde\n" * (size // 16 + 1))[:size]
        sandbox.write_file("file", content)
        assert sandbox.read_file("file") == content

    def test_what_cannot_be_compressed(self, sandbox: Sandbox) -> None:
        content = os.urandom(150_000)
        sandbox.write_file("file", content)
        assert sandbox.read_file("file") == content

    def test_text(self, sandbox: Sandbox) -> None:
        sandbox.write_file("file", "é\r\n🎉")
        assert sandbox.read_text("file") == "é\r\n🎉"
        assert sandbox.read_file("file") == "é\r\n🎉".encode()

    def test_text_that_is_not_utf8(self, sandbox: Sandbox) -> None:
        sandbox.write_file("file", b"\xe9")
        with pytest.raises(UnicodeDecodeError):
            sandbox.read_text("file")
        assert sandbox.read_text("file", "latin-1") == "é"
        assert sandbox.read_text("file", errors="replace") == "\ufffd"

    def test_pieces(self, sandbox: Sandbox) -> None:
        assert sandbox.write_file("file", (b"%d\n" % n for n in range(5))) == 10
        assert sandbox.read_text("file") == "0\n1\n2\n3\n4\n"

    @pytest.mark.parametrize(
        ("offset", "size", "part"),
        [
            (0, 3, b"012"),
            (3, 4, b"3456"),
            (8, None, b"89"),
            (8, 100, b"89"),
            (100, 5, b""),
            (2, 0, b""),
        ],
    )
    def test_a_part(self, sandbox: Sandbox, offset: int, size: int | None, part: bytes) -> None:
        sandbox.write_file("file", b"0123456789")
        assert sandbox.read_file("file", offset=offset, size=size) == part

    def test_a_part_far_inside(self, sandbox: Sandbox) -> None:
        sandbox.exec("seq 1 300000 >file")
        whole = "".join(f"{n}\n" for n in range(1, 300_001)).encode()
        assert sandbox.read_file("file", offset=1_234_567, size=77) == whole[1_234_567:][:77]
        assert sandbox.read_file("file", offset=1_000_001) == whole[1_000_001:]

    def test_files_of_proc_have_content_but_no_size(self, sandbox: Sandbox) -> None:
        assert sandbox.read_text("/proc/self/status").startswith("Name:")
        assert sandbox.read_text("/proc/uptime").count(" ") == 1

    def test_dev_null(self, sandbox: Sandbox) -> None:
        sandbox.write_file("/dev/null", "gone")
        assert sandbox.read_file("/dev/null") == b""
        assert sandbox.stat("/dev/null").kind == "char"

    def test_appending(self, sandbox: Sandbox) -> None:
        sandbox.append_file("file", "one\n")
        sandbox.append_file("file", b"\xfftwo\n")
        sandbox.append_file("file", b"z" * 30_000)
        assert sandbox.read_file("file") == b"one\n\xfftwo\n" + b"z" * 30_000


class TestWriting:
    def test_parents_are_made(self, sandbox: Sandbox) -> None:
        sandbox.write_file("a/b/c", "x")
        assert sandbox.read_text("a/b/c") == "x"

    def test_parents_are_not_made_when_not_wanted(self, sandbox: Sandbox) -> None:
        with pytest.raises(SandboxFileNotFound):
            sandbox.write_file("a/b", "x", parents=False)

    @pytest.mark.parametrize("mode", [0o600, 0o755, 0o444, 0o4755, 0o666])
    def test_the_mode_is_exact(self, sandbox: Sandbox, mode: int) -> None:
        sandbox.write_file("file", "x", mode=mode)
        assert sandbox.stat("file").mode == mode

    def test_the_default_mode(self, sandbox: Sandbox) -> None:
        sandbox.write_file("file", "x")
        assert sandbox.stat("file").mode == 0o644

    def test_a_file_that_is_replaced_keeps_its_mode(self, sandbox: Sandbox) -> None:
        sandbox.write_file("file", "x", mode=0o751)
        sandbox.write_file("file", "y")
        assert sandbox.stat("file").mode == 0o751
        assert sandbox.read_text("file") == "y"

    def test_a_symlink_is_followed(self, sandbox: Sandbox) -> None:
        sandbox.write_file("dir/real", "old")
        sandbox.path("link").symlink_to("dir/real")
        sandbox.write_file("link", "new")
        assert sandbox.read_text("dir/real") == "new"
        assert sandbox.path("link").is_symlink()

    def test_a_reader_keeps_the_old_file(self, sandbox: Sandbox) -> None:
        sandbox.write_file("file", "old\n")
        script = "exec 5<file; echo open; while [ ! -e go ]; do sleep 0.05; done; cat <&5"
        process = sandbox.popen(script)
        process.wait_for_log("open")
        sandbox.write_file("file", "new, and longer\n")
        sandbox.write_file("go", "")
        assert process.stdout.read() == "open\nold\n"

    def test_no_temporary_file_stays(self, sandbox: Sandbox) -> None:
        sandbox.write_file("file", b"x" * 50_000)
        assert [f.name for f in sandbox.list_files()] == ["file"]

    def test_pieces_that_end_early_leave_nothing(self, sandbox: Sandbox) -> None:
        def pieces() -> object:
            yield b"x" * 100_000
            raise RuntimeError("the source broke")

        sandbox.write_file("file", "old")
        with pytest.raises(RuntimeError, match="broke"):
            sandbox.write_file("file", pieces())  # type: ignore[arg-type]  # a generator
        assert sandbox.read_text("file") == "old"
        assert [f.name for f in sandbox.list_files()] == ["file"]

    def test_a_directory_is_in_the_way(self, sandbox: Sandbox) -> None:
        sandbox.mkdir("dir")
        with pytest.raises(SandboxIsADirectory):
            sandbox.write_file("dir", "x")
        assert sandbox.list_files("dir") == []

    def test_a_file_is_no_parent(self, sandbox: Sandbox) -> None:
        sandbox.write_file("file", "x")
        with pytest.raises(SandboxNotADirectory):
            sandbox.write_file("file/below", "x")

    def test_a_running_program_can_be_replaced(self, sandbox: Sandbox) -> None:
        sandbox.exec("cp /bin/sleep program")
        process = sandbox.popen(["./program", "60"])
        sandbox.write_file("program", "#!/bin/sh\necho new\n")
        assert sandbox.exec(["./program"]).stdout == "new\n"
        process.end()


class TestNames:
    @pytest.mark.parametrize("name", NAMES, ids=ascii)
    def test_any_legal_name(self, sandbox: Sandbox, name: str) -> None:
        sandbox.write_file(name, "content")
        assert sandbox.read_text(name) == "content"
        (info,) = sandbox.list_files()
        assert (info.name, info.kind, info.size) == (name, "file", 7)
        assert sandbox.stat(name).size == 7
        sandbox.rename(name, "other")
        sandbox.rename("other", name)
        assert sandbox.exec(["cat", "--", sandbox.path(name)]).stdout == "content"
        assert [str(p) for p in sandbox.glob("*")] == [name]
        sandbox.remove(name)
        assert not sandbox.exists(name)

    @pytest.mark.parametrize("name", NAMES, ids=ascii)
    def test_any_directory_name(self, sandbox: Sandbox, name: str) -> None:
        sandbox.mkdir(name)
        sandbox.write_file(f"{name}/inside", "x")
        assert [f.name for f in sandbox.list_files(name)] == ["inside"]
        assert sandbox.exec("cat inside", cwd=name).stdout == "x"
        assert [str(p) for p in sandbox.glob("**/inside")] == [f"{name}/inside"]

    def test_bytes_are_names_too(self, sandbox: Sandbox) -> None:
        sandbox.write_file(b"\xff\xfe", "x")
        assert sandbox.read_file(b"\xff\xfe") == b"x"
        assert sandbox.list_files()[0].name == "\udcff\udcfe"

    @pytest.mark.parametrize("name", ["", b"", "a\0b"])
    def test_what_cannot_be_a_path_is_refused(self, sandbox: Sandbox, name: str | bytes) -> None:
        for verb in (sandbox.read_file, sandbox.stat, sandbox.exists, sandbox.remove):
            with pytest.raises(ValueError, match="is no path"):
                verb(name)

    def test_what_is_no_path_at_all_is_refused(self, sandbox: Sandbox) -> None:
        with pytest.raises(TypeError, match="expected a path"):
            sandbox.read_file(3)  # type: ignore[arg-type]  # the point of the test

    def test_absolute_paths(self, sandbox: Sandbox) -> None:
        sandbox.write_file(f"{sandbox.workdir}/file", "x")
        assert sandbox.read_text("file") == "x"
        assert "root:" in sandbox.read_text("/etc/passwd")


class TestStat:
    def test_a_file(self, sandbox: Sandbox) -> None:
        before = time.time()
        sandbox.write_file("file", "hello", mode=0o640)
        info = sandbox.stat("file")
        assert (info.name, info.kind, info.size, info.mode) == ("file", "file", 5, 0o640)
        ids = [int(n) for n in sandbox.exec("id -u; id -g").stdout.split()]
        assert [info.uid, info.gid, info.target] == [*ids, None]
        assert abs(info.mtime - before) < 60

    def test_it_has_the_names_of_os_stat_too(self, sandbox: Sandbox) -> None:
        sandbox.write_file("file", "hello", mode=0o640)
        info = sandbox.stat("file")
        assert (info.st_size, info.st_mode, info.st_mtime) == (5, 0o100640, info.mtime)
        assert (info.st_uid, info.st_gid) == (info.uid, info.gid)

    def test_times_have_fractions(self, sandbox: Sandbox) -> None:
        sandbox.exec("touch -d @1000000000.25 file")
        assert sandbox.stat("file").mtime == 1000000000.25
        assert sandbox.list_files()[0].mtime == 1000000000.25

    @pytest.mark.parametrize(
        ("script", "kind"),
        [
            ("mkdir x", "directory"),
            ("mkfifo x", "fifo"),
            ("ln -s y x", "symlink"),
            (
                "python3 -c \"import socket; socket.socket(socket.AF_UNIX).bind('x')\"",
                "socket",
            ),
        ],
    )
    def test_kinds(self, sandbox: Sandbox, script: str, kind: str) -> None:
        sandbox.exec(script)
        assert sandbox.stat("x", follow_symlinks=False).kind == kind
        assert [f.kind for f in sandbox.list_files()] == [kind]

    def test_a_symlink_itself_and_what_it_points_to(self, sandbox: Sandbox) -> None:
        sandbox.write_file("real\n", "hello")
        sandbox.path("link").symlink_to("real\n")
        assert sandbox.stat("link").kind == "file"
        assert sandbox.stat("link").size == 5
        info = sandbox.stat("link", follow_symlinks=False)
        assert (info.kind, info.target) == ("symlink", "real\n")

    def test_a_dangling_symlink(self, sandbox: Sandbox) -> None:
        sandbox.path("link").symlink_to("nowhere")
        with pytest.raises(SandboxFileNotFound):
            sandbox.stat("link")
        assert sandbox.stat("link", follow_symlinks=False).target == "nowhere"
        assert not sandbox.exists("link")
        assert sandbox.exists("link", follow_symlinks=False)

    def test_the_workspace_itself(self, sandbox: Sandbox) -> None:
        assert sandbox.stat(".").kind == "directory"
        assert sandbox.exists(".")

    def test_a_loop_of_symlinks(self, sandbox: Sandbox) -> None:
        sandbox.path("a").symlink_to("b")
        sandbox.path("b").symlink_to("a")
        with pytest.raises(SandboxFileError) as info:
            sandbox.stat("a")
        assert info.value.errno == 40


class TestListing:
    def test_it_is_sorted_and_has_hidden_files(self, sandbox: Sandbox) -> None:
        sandbox.exec("touch b a .c C; mkdir d")
        assert [f.name for f in sandbox.list_files()] == [".c", "C", "a", "b", "d"]

    def test_an_empty_directory(self, sandbox: Sandbox) -> None:
        assert sandbox.list_files() == []

    def test_a_thousand_files(self, sandbox: Sandbox) -> None:
        sandbox.exec("i=0; while [ $i -lt 1000 ]; do : >file$i; i=$((i+1)); done")
        assert len(sandbox.list_files()) == 1000

    def test_a_directory_through_a_symlink(self, sandbox: Sandbox) -> None:
        sandbox.write_file("dir/file", "x")
        sandbox.path("link").symlink_to("dir")
        assert [f.name for f in sandbox.list_files("link")] == ["file"]

    def test_a_missing_directory(self, sandbox: Sandbox) -> None:
        with pytest.raises(SandboxFileNotFound) as info:
            sandbox.list_files("missing")
        assert isinstance(info.value, FileNotFoundError)
        assert info.value.errno == 2
        assert str(info.value.filename).endswith("missing")

    def test_a_file_is_no_directory(self, sandbox: Sandbox) -> None:
        sandbox.write_file("file", "x")
        with pytest.raises(SandboxNotADirectory):
            sandbox.list_files("file")


class TestErrors:
    def test_reading_what_is_missing(self, sandbox: Sandbox) -> None:
        with pytest.raises(FileNotFoundError):
            sandbox.read_file("missing")
        with pytest.raises(SandboxFileNotFound):
            sandbox.read_file("missing/deeper")

    def test_reading_a_directory(self, sandbox: Sandbox) -> None:
        with pytest.raises(SandboxIsADirectory):
            sandbox.read_file(".")

    def test_a_file_as_directory(self, sandbox: Sandbox) -> None:
        sandbox.write_file("file", "x")
        with pytest.raises(SandboxNotADirectory):
            sandbox.read_file("file/below")
        assert not sandbox.exists("file/below")

    def test_a_name_that_is_too_long(self, sandbox: Sandbox) -> None:
        with pytest.raises(SandboxFileError) as info:
            sandbox.write_file("x" * 300, "")
        assert info.value.errno == 36

    def test_a_full_disk(self, sandbox: Sandbox) -> None:
        with pytest.raises(SandboxFileError) as info:
            sandbox.write_file("/dev/full", "x" * 10)
        assert info.value.errno == 28


class TestMkdir:
    def test_it_makes_one(self, sandbox: Sandbox) -> None:
        sandbox.mkdir("dir")
        assert sandbox.stat("dir").kind == "directory"
        assert sandbox.stat("dir").mode == 0o755

    def test_the_mode_goes_through_the_umask(self, sandbox: Sandbox) -> None:
        sandbox.mkdir("dir", mode=0o770)
        assert sandbox.stat("dir").mode == 0o750

    def test_a_missing_parent(self, sandbox: Sandbox) -> None:
        with pytest.raises(SandboxFileNotFound):
            sandbox.mkdir("a/b")
        sandbox.mkdir("a/b", parents=True)
        assert sandbox.exists("a/b")

    def test_it_exists(self, sandbox: Sandbox) -> None:
        sandbox.mkdir("dir")
        with pytest.raises(SandboxFileExists):
            sandbox.mkdir("dir")
        with pytest.raises(SandboxFileExists):
            sandbox.mkdir("dir", parents=True)
        sandbox.mkdir("dir", exist_ok=True)

    def test_a_file_is_in_the_way(self, sandbox: Sandbox) -> None:
        sandbox.write_file("file", "")
        with pytest.raises(SandboxFileExists):
            sandbox.mkdir("file", exist_ok=True)
        with pytest.raises(SandboxNotADirectory):
            sandbox.mkdir("file/dir", parents=True)


class TestRemove:
    def test_a_file(self, sandbox: Sandbox) -> None:
        sandbox.write_file("file", "")
        sandbox.remove("file")
        assert not sandbox.exists("file")

    def test_what_is_missing(self, sandbox: Sandbox) -> None:
        with pytest.raises(SandboxFileNotFound):
            sandbox.remove("missing")
        sandbox.remove("missing", missing_ok=True)
        sandbox.remove("missing", missing_ok=True, recursive=True)

    def test_an_empty_directory(self, sandbox: Sandbox) -> None:
        sandbox.mkdir("dir")
        sandbox.remove("dir")
        assert not sandbox.exists("dir")

    def test_a_tree_only_when_asked(self, sandbox: Sandbox) -> None:
        sandbox.write_file("dir/file", "")
        with pytest.raises(SandboxFileError) as info:
            sandbox.remove("dir")
        assert info.value.errno == 39
        sandbox.remove("dir", recursive=True)
        assert not sandbox.exists("dir")

    def test_a_symlink_itself(self, sandbox: Sandbox) -> None:
        sandbox.write_file("dir/file", "")
        sandbox.path("link").symlink_to("dir")
        sandbox.remove("link", recursive=True)
        assert sandbox.exists("dir/file")

    def test_a_dangling_symlink(self, sandbox: Sandbox) -> None:
        sandbox.path("link").symlink_to("nowhere")
        sandbox.remove("link")
        assert sandbox.list_files() == []


class TestRename:
    def test_a_file(self, sandbox: Sandbox) -> None:
        sandbox.write_file("a", "x")
        sandbox.rename("a", "b")
        assert [f.name for f in sandbox.list_files()] == ["b"]

    def test_it_replaces_a_file(self, sandbox: Sandbox) -> None:
        sandbox.write_file("a", "x")
        sandbox.write_file("b", "y")
        sandbox.rename("a", "b")
        assert sandbox.read_text("b") == "x"

    def test_it_never_moves_into_a_directory(self, sandbox: Sandbox) -> None:
        sandbox.write_file("a", "x")
        sandbox.mkdir("dir")
        with pytest.raises(SandboxIsADirectory):
            sandbox.rename("a", "dir")
        assert sandbox.read_text("a") == "x"
        assert sandbox.list_files("dir") == []

    def test_directories(self, sandbox: Sandbox) -> None:
        sandbox.write_file("a/file", "x")
        sandbox.mkdir("b")
        sandbox.rename("a", "b")
        assert sandbox.read_text("b/file") == "x"
        assert not sandbox.exists("a")

    def test_a_directory_that_is_not_empty_stays(self, sandbox: Sandbox) -> None:
        sandbox.mkdir("a")
        sandbox.write_file("b/file", "x")
        with pytest.raises(SandboxFileError) as info:
            sandbox.rename("a", "b")
        assert info.value.errno == 39

    def test_a_directory_over_a_file(self, sandbox: Sandbox) -> None:
        sandbox.mkdir("a")
        sandbox.write_file("b", "x")
        with pytest.raises(SandboxNotADirectory):
            sandbox.rename("a", "b")

    def test_over_a_symlink_to_a_directory(self, sandbox: Sandbox) -> None:
        sandbox.write_file("a", "x")
        sandbox.mkdir("dir")
        sandbox.path("link").symlink_to("dir")
        sandbox.rename("a", "link")
        assert sandbox.read_text("link") == "x"
        assert sandbox.list_files("dir") == []

    def test_what_is_missing(self, sandbox: Sandbox) -> None:
        with pytest.raises(SandboxFileNotFound):
            sandbox.rename("missing", "b")
        sandbox.write_file("a", "x")
        with pytest.raises(SandboxFileNotFound):
            sandbox.rename("a", "missing/b")


class TestGlob:
    @pytest.fixture
    def tree(self, sandbox: Sandbox) -> Sandbox:
        sandbox.exec(
            "mkdir -p src/deep/deeper .git; "
            "touch a.py b.txt src/c.py src/deep/d.py src/deep/deeper/e.py .git/f.py '[x].py'"
        )
        return sandbox

    @pytest.mark.parametrize(
        ("pattern", "found"),
        [
            ("*.py", ["[x].py", "a.py"]),
            ("a.py", ["a.py"]),
            ("missing", []),
            ("*", [".git", "[x].py", "a.py", "b.txt", "src"]),
            ("*/*.py", [".git/f.py", "src/c.py"]),
            ("src/*", ["src/c.py", "src/deep"]),
            ("src/**/*.py", ["src/c.py", "src/deep/d.py", "src/deep/deeper/e.py"]),
            ("**/d*.py", ["src/deep/d.py"]),
            ("src/**/deeper", ["src/deep/deeper"]),
            ("src/deep/**", ["src/deep/d.py", "src/deep/deeper", "src/deep/deeper/e.py"]),
            ("[ab].*", ["a.py", "b.txt"]),
            ("?.py", ["a.py"]),
            ("[[]x].py", ["[x].py"]),
        ],
    )
    def test_patterns(self, tree: Sandbox, pattern: str, found: list[str]) -> None:
        assert [str(p) for p in tree.glob(pattern)] == found

    def test_an_absolute_pattern(self, tree: Sandbox) -> None:
        assert [p.name for p in tree.glob(f"{tree.workdir}/*.txt")] == ["b.txt"]

    def test_a_missing_directory_matches_nothing(self, tree: Sandbox) -> None:
        assert tree.glob("missing/*.py") == []

    def test_symlinks_are_found_and_not_followed(self, tree: Sandbox) -> None:
        tree.path("loop").symlink_to(".")
        assert [str(p) for p in tree.glob("loop*")] == ["loop"]
        assert [str(p) for p in tree.glob("**/c.py")] == ["src/c.py"]
