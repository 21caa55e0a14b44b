"""Files and whole trees, up and down, the same over every way."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from pathlib import Path

import pytest

from pytest_flymachines.errors import (
    SandboxFileNotFound,
    SandboxIsADirectory,
    SandboxNotADirectory,
)
from pytest_flymachines.sandbox import Sandbox

Facts = dict[str, tuple[str, int, int, bytes | str]]


def facts(top: Path) -> Facts:
    """What is in a directory of this computer: kind, mode, time and content or target."""
    found: Facts = {}
    for path in [top, *top.rglob("*")]:
        status = path.lstat()
        name = str(path.relative_to(top))
        if stat.S_ISLNK(status.st_mode):
            found[name] = "symlink", 0, 0, str(path.readlink())
        elif stat.S_ISDIR(status.st_mode):
            found[name] = "directory", status.st_mode, status.st_mtime_ns, ""
        elif stat.S_ISFIFO(status.st_mode):
            found[name] = "fifo", status.st_mode, status.st_mtime_ns, ""
        else:
            found[name] = "file", status.st_mode, status.st_mtime_ns, path.read_bytes()
    return found


@pytest.fixture
def tree(local: Path) -> Path:
    """A tree with everything that is hard to copy."""
    top = local / "tree"
    (top / "empty").mkdir(parents=True)
    (top / "deep/er/still").mkdir(parents=True)
    (top / "a b\n").write_bytes(b"spaces and a newline")
    Path(os.fsdecode(os.fsencode(top) + b"/\xff\xfe")).write_bytes(b"no UTF-8")
    (top / "deep/er/é🎉").write_text("unicode")
    (top / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (top / "run.sh").chmod(0o755)
    (top / "secret").write_text("s")
    (top / "secret").chmod(0o600)
    (top / "nothing").write_bytes(b"")
    (top / "bytes").write_bytes(bytes(range(256)) * 300)
    (top / "deep" / ("n" * 200)).write_text("a long name")
    (top / "link").symlink_to("run.sh")
    (top / "dangling").symlink_to("/no\nwhere/é")
    (top / "loop").symlink_to(".")
    os.mkfifo(top / "fifo", 0o640)
    os.utime(top / "run.sh", (1_000_000_000.25, 1_000_000_000.25))
    os.utime(top / "empty", (1_100_000_000.5, 1_100_000_000.5))
    os.utime(top / "secret", ns=(0, 1_700_000_000_123_456_789))
    (top / "deep/er").chmod(0o750)
    return top


class TestThereAndBack:
    @pytest.mark.core
    def test_everything_is_kept(self, sandbox: Sandbox, tree: Path, local: Path) -> None:
        sandbox.upload(tree, "up/there")
        sandbox.download("up/there", local / "back")
        assert facts(local / "back") == facts(tree)

    def test_the_machine_has_it_as_it_was(self, sandbox: Sandbox, tree: Path) -> None:
        sandbox.upload(tree, "there")
        assert sandbox.exec(["there/run.sh"]).stdout == "ran\n"
        info = sandbox.stat("there/run.sh")
        assert (info.mode, info.mtime) == (0o755, 1_000_000_000.25)
        assert info.uid == int(sandbox.exec("id -u").stdout)
        assert sandbox.stat("there/secret").mode == 0o600
        assert sandbox.list_files("there/empty") == []
        assert sandbox.path("there/dangling").readlink().as_posix() == "/no\nwhere/é"

    @pytest.mark.core
    def test_nothing_temporary_stays(self, sandbox: Sandbox, tree: Path, local: Path) -> None:
        sandbox.upload(tree, "there")
        sandbox.upload(tree, "there")
        sandbox.download("there", local / "back")
        sandbox.download("there", local / "back")
        assert [f.name for f in sandbox.list_files()] == ["there"]
        assert sorted(p.name for p in local.iterdir()) == ["back", "tree"]
        before, after = facts(tree), facts(local / "back")
        # a directory that is merged into stays what it was, but for its entries
        assert after.pop(".")[:2] == before.pop(".")[:2]
        assert after == before

    def test_many_files(self, sandbox: Sandbox, local: Path) -> None:
        for n in range(400):
            file = local / f"many/{n % 20}/{n}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{n}\n" * (n % 7))
        sandbox.upload(local / "many", "many")
        sandbox.download("many", local / "back")
        assert facts(local / "back") == facts(local / "many")

    def test_an_empty_directory(self, sandbox: Sandbox, local: Path) -> None:
        (local / "empty").mkdir()
        sandbox.upload(local / "empty", "empty")
        sandbox.download("empty", local / "back")
        assert list((local / "back").iterdir()) == []


class TestSingleFile:
    def test_up_and_down(self, sandbox: Sandbox, tree: Path, local: Path) -> None:
        sandbox.upload(tree / "run.sh", "bin/tool")
        info = sandbox.stat("bin/tool")
        assert (info.mode, info.mtime) == (0o755, 1_000_000_000.25)
        sandbox.download("bin/tool", local / "new/dir/tool")
        status = (local / "new/dir/tool").stat()
        assert (stat.S_IMODE(status.st_mode), status.st_mtime) == (0o755, 1_000_000_000.25)
        assert (local / "new/dir/tool").read_text() == "#!/bin/sh\necho ran\n"

    @pytest.mark.parametrize("name", ["-n", "a b", "new\nline", "\udcff"])
    def test_odd_names(self, sandbox: Sandbox, local: Path, name: str) -> None:
        (local / "file").write_text("x")
        sandbox.upload(local / "file", name)
        assert [f.name for f in sandbox.list_files()] == [name]
        sandbox.download(name, local / "back")
        assert (local / "back").read_text() == "x"

    @pytest.mark.parametrize("ns", [0, -1_500_000_000, 1_700_000_000_123_456_789, 2**33 * 10**9])
    def test_any_time_is_kept(self, sandbox: Sandbox, local: Path, ns: int) -> None:
        (local / "file").write_text("x")
        os.utime(local / "file", ns=(0, ns))
        sandbox.path("real").write_text("")
        sandbox.path("link").symlink_to("real")
        sandbox.upload(local / "file", "link")
        assert sandbox.stat("real").mtime == ns / 1e9
        sandbox.download("real", local / "back")
        assert (local / "back").stat().st_mtime_ns == ns

    def test_it_replaces_a_file(self, sandbox: Sandbox, local: Path) -> None:
        (local / "file").write_text("new")
        sandbox.write_file("there", "old")
        sandbox.upload(local / "file", "there")
        assert sandbox.read_text("there") == "new"
        (local / "file").write_text("older")
        sandbox.download("there", local / "file")
        assert (local / "file").read_text() == "new"

    def test_a_symlink_is_followed(self, sandbox: Sandbox, tree: Path, local: Path) -> None:
        sandbox.upload(tree / "link", "tool")
        assert sandbox.stat("tool", follow_symlinks=False).kind == "file"
        sandbox.path("link").symlink_to("tool")
        sandbox.download("link", local / "back")
        assert (local / "back").read_text() == "#!/bin/sh\necho ran\n"
        assert not (local / "back").is_symlink()

    def test_it_does_not_go_into_a_directory(self, sandbox: Sandbox, local: Path) -> None:
        (local / "file").write_text("x")
        (local / "dir").mkdir()
        sandbox.mkdir("dir")
        with pytest.raises(SandboxIsADirectory):
            sandbox.upload(local / "file", "dir")
        sandbox.write_file("file", "x")
        with pytest.raises(IsADirectoryError):
            sandbox.download("file", local / "dir")
        assert sandbox.list_files("dir") == []


class TestMerging:
    def test_what_was_there_stays(self, sandbox: Sandbox, local: Path) -> None:
        (local / "new/sub").mkdir(parents=True)
        (local / "new/sub/changed").write_text("new")
        (local / "new/added").write_text("new")
        sandbox.write_file("there/sub/changed", "old")
        sandbox.write_file("there/sub/kept", "old")
        sandbox.upload(local / "new", "there")
        assert {str(p): p.read_text() for p in sandbox.glob("there/**/*") if p.is_file()} == {
            "there/added": "new",
            "there/sub/changed": "new",
            "there/sub/kept": "old",
        }

    def test_downloads_merge_too(self, sandbox: Sandbox, local: Path) -> None:
        sandbox.write_file("there/sub/changed", "new")
        (local / "back/sub").mkdir(parents=True)
        (local / "back/sub/changed").write_text("old")
        (local / "back/sub/kept").write_text("old")
        sandbox.download("there", local / "back")
        assert (local / "back/sub/changed").read_text() == "new"
        assert (local / "back/sub/kept").read_text() == "old"

    def test_kinds_change(self, sandbox: Sandbox, local: Path) -> None:
        (local / "new/dir").mkdir(parents=True)
        (local / "new/dir/inside").write_text("new")
        (local / "new/file").write_text("new")
        (local / "new/link").write_text("new")
        sandbox.write_file("there/dir", "was a file")
        sandbox.write_file("there/file/was", "a directory")
        sandbox.mkdir("elsewhere")
        sandbox.path("there/link").symlink_to("../elsewhere")
        sandbox.upload(local / "new", "there")
        assert sandbox.read_text("there/dir/inside") == "new"
        assert sandbox.read_text("there/file") == "new"
        assert sandbox.read_text("there/link") == "new"
        assert sandbox.list_files("elsewhere") == []

    def test_a_running_program_can_be_replaced(self, sandbox: Sandbox, local: Path) -> None:
        (local / "new").mkdir()
        (local / "new/program").write_text("#!/bin/sh\necho new\n")
        (local / "new/program").chmod(0o755)
        sandbox.exec("mkdir there; cp /bin/sleep there/program")
        process = sandbox.popen(["there/program", "60"])
        sandbox.upload(local / "new", "there")
        assert sandbox.exec(["there/program"]).stdout == "new\n"
        process.end()


class TestExclude:
    @pytest.mark.parametrize(
        ("patterns", "left"),
        [
            ([], {".", "a.py", "a.pyc", "sub", "sub/b.pyc", "sub/c", "node", "node/x"}),
            (["*.pyc"], {".", "a.py", "sub", "sub/c", "node", "node/x"}),
            (["node"], {".", "a.py", "a.pyc", "sub", "sub/b.pyc", "sub/c"}),
            (["node/"], {".", "a.py", "a.pyc", "sub", "sub/b.pyc", "sub/c"}),
            (["sub/*"], {".", "a.py", "a.pyc", "sub", "node", "node/x"}),
            (["/a.py", "sub"], {".", "a.pyc", "node", "node/x"}),
            (["**/c", "n*"], {".", "a.py", "a.pyc", "sub", "sub/b.pyc"}),
            (["*"], {"."}),
            (["a*c"], {".", "a.py", "sub", "sub/b.pyc", "sub/c", "node", "node/x"}),
        ],
    )
    def test_patterns(
        self, sandbox: Sandbox, local: Path, patterns: list[str], left: set[str]
    ) -> None:
        for name in ("a.py", "a.pyc", "sub/b.pyc", "sub/c", "node/x"):
            (local / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
            (local / "tree" / name).write_text("")
        sandbox.upload(local / "tree", "up", exclude=patterns)
        assert {str(p.relative_to("up")) for p in sandbox.glob("up/**")} | {"."} == left
        sandbox.upload(local / "tree", "all")
        sandbox.download("all", local / "back", exclude=patterns)
        assert set(facts(local / "back")) == left


class TestProgress:
    def test_bytes_sent_of_how_many(self, sandbox: Sandbox, local: Path) -> None:
        (local / "tree").mkdir()
        (local / "tree/a").write_bytes(b"x" * 300_000)
        (local / "tree/b").write_bytes(b"y" * 10)
        told: list[tuple[int, int | None]] = []
        sandbox.upload(local / "tree", "up", progress=lambda *a: told.append(a))
        assert told[-1] == (300_010, 300_010)
        assert told == sorted(told)
        told.clear()
        sandbox.upload(local / "tree/a", "a", progress=lambda *a: told.append(a))
        assert told[-1] == (300_000, 300_000)

    def test_bytes_received(self, sandbox: Sandbox, local: Path) -> None:
        sandbox.write_file("tree/a", b"x" * 300_000)
        told: list[tuple[int, int | None]] = []
        sandbox.download("tree", local / "tree", progress=lambda *a: told.append(a))
        assert told[-1] == (300_000, None)


class TestErrors:
    def test_what_is_missing(self, sandbox: Sandbox, local: Path) -> None:
        with pytest.raises(FileNotFoundError):
            sandbox.upload(local / "missing", "there")
        with pytest.raises(SandboxFileNotFound):
            sandbox.download("missing", local / "back")
        assert list(local.iterdir()) == []

    def test_a_tree_over_a_file(self, sandbox: Sandbox, tree: Path) -> None:
        sandbox.write_file("file", "x")
        with pytest.raises(SandboxNotADirectory):
            sandbox.upload(tree, "file")
        assert sandbox.read_text("file") == "x"

    @pytest.mark.parametrize(
        ("size", "data"),
        [
            (4_000_000, {}),
            (4_000_001, {0: b"start"}),
            (4_000_000, {3_999_990: b"at the end"}),
            (5_000_003, {70_000: b"one", 2_000_000: b"two" * 100_000}),
            (1000, {500: b"smaller than a block"}),
        ],
        ids=["all", "start", "end", "between", "small"],
    )
    def test_holes_arrive_as_holes(
        self, sandbox: Sandbox, local: Path, size: int, data: dict[int, bytes]
    ) -> None:
        (local / "tree").mkdir()
        with (local / "tree/sparse").open("wb") as file:
            for offset, content in data.items():
                file.seek(offset)
                file.write(content)
            file.truncate(size)
        most = sum(len(content) for content in data.values()) + len(data) * 40_000 + 20_000
        digest = hashlib.sha256((local / "tree/sparse").read_bytes()).hexdigest()
        sandbox.upload(local / "tree/sparse", "alone")
        sandbox.upload(local / "tree", "tree")
        sandbox.download("alone", local / "alone")
        sandbox.download("tree", local / "back")
        for back in (local / "alone", local / "back/sparse"):
            assert back.stat().st_size == size
            assert hashlib.sha256(back.read_bytes()).hexdigest() == digest
            assert back.stat().st_blocks * 512 <= most
        for there in ("alone", "tree/sparse"):
            assert sandbox.exec(["sha256sum", there]).stdout.startswith(digest)
            if sandbox.attachment.channel.name == "agent":
                assert int(sandbox.exec(["stat", "-c", "%b", there]).stdout) * 512 <= most

    def test_files_that_are_made_when_they_are_read(self, sandbox: Sandbox, local: Path) -> None:
        """Their size is 0 or a page, whatever is in them."""
        version = Path("/proc/version")
        sandbox.upload(version, "version")
        assert sandbox.read_text("version") == version.read_text()
        sandbox.download("/proc/version", local / "back")
        assert (local / "back").read_text() == sandbox.exec("cat /proc/version").stdout
        sandbox.download("/proc/sys/kernel/ostype", local / "type")
        assert (local / "type").read_text() == "Linux\n"

    def test_a_fifo_alone_is_not_waited_for(self, sandbox: Sandbox, local: Path) -> None:
        os.mkfifo(local / "fifo")
        with pytest.raises(shutil.SpecialFileError, match="is a FIFO"):
            sandbox.upload(local / "fifo", "there")

    def test_a_file_in_the_way_of_a_download_is_no_directory(
        self, sandbox: Sandbox, tree: Path, local: Path
    ) -> None:
        sandbox.upload(tree, "tree")
        for remote in ("tree", "tree/run.sh"):
            with pytest.raises(NotADirectoryError) as caught:
                sandbox.download(remote, tree / "secret/below")
            assert isinstance(caught.value.filename, str)
        assert (tree / "secret").read_text() == "s"

    def test_a_circle_of_symlinks_is_nothing(self, sandbox: Sandbox, local: Path) -> None:
        (local / "tree").mkdir()
        (local / "tree/one").symlink_to("two")
        (local / "tree/two").symlink_to("one")
        sandbox.upload(local / "tree", "up")
        assert not sandbox.exists("up/one")
        assert not sandbox.path("up/one").is_dir()
        assert sandbox.exists("up/one", follow_symlinks=False)
        with pytest.raises(OSError, match="symbolic links"):
            sandbox.download("up/one", local / "back")
        with pytest.raises(OSError, match="symbolic links"):
            sandbox.upload(Path(__file__), "up/one")
        with pytest.raises(SandboxNotADirectory):
            sandbox.upload(local / "tree", "up/one")
        sandbox.download("up", local / "back")
        assert facts(local / "back")["two"] == facts(local / "tree")["two"]

    def test_an_upload_that_breaks_leaves_nothing(self, sandbox: Sandbox, tree: Path) -> None:
        def broken(done: int, total: int | None) -> None:
            if done > 60_000:
                raise RuntimeError("the cable was cut")

        with pytest.raises(RuntimeError, match="cable"):
            sandbox.upload(tree, "there", progress=broken)
        assert sandbox.list_files() == []

    def test_a_download_that_breaks_leaves_nothing(
        self, sandbox: Sandbox, tree: Path, local: Path
    ) -> None:
        def broken(done: int, total: int | None) -> None:
            raise RuntimeError("the cable was cut")

        sandbox.upload(tree, "there")
        with pytest.raises(RuntimeError, match="cable"):
            sandbox.download("there", local / "back", progress=broken)
        assert [p.name for p in local.iterdir()] == ["tree"]
