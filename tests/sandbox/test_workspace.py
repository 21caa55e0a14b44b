"""Checkpoints and private workspaces, the same over every way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_flymachines.sandbox import Sandbox
from pytest_flymachines.sandbox.workspace import PRISTINE

NO_CHECKPOINT = r"^no checkpoint 'missing' on machine \w+: .*checkpoint\('missing'\) makes it$"


@pytest.fixture
def filled(sandbox: Sandbox) -> Iterator[Sandbox]:
    """A workspace with something in it; checkpoints of a test end with it."""
    sandbox.exec(
        "mkdir -p dir/empty; echo one >file; echo two >dir/file; ln -s file link; chmod 600 file"
    )
    yield sandbox
    for name in sandbox.checkpoints():
        sandbox.delete_checkpoint(name)


def tree(sandbox: Sandbox) -> str:
    """Kind, mode and name of everything in the workspace, and all content."""
    return sandbox.exec(
        "find . -mindepth 1 | sort | xargs stat -c '%F %a %n'; find . -type f | sort | xargs cat"
    ).stdout


class TestCheckpoints:
    @pytest.mark.core
    def test_restore_brings_everything_back(self, filled: Sandbox) -> None:
        before = tree(filled)
        filled.checkpoint("before")
        filled.exec(
            "rm -r dir link; echo changed >file; chmod 755 file; mkdir 'new dir'; touch .new"
        )
        filled.restore("before")
        assert tree(filled) == before

    def test_a_checkpoint_can_be_restored_again(self, filled: Sandbox) -> None:
        filled.checkpoint("before")
        for _ in range(2):
            filled.exec("echo changed >file")
            filled.restore("before")
            assert filled.read_text("file") == "one\n"

    def test_odd_names_come_back(self, filled: Sandbox) -> None:
        names = ["-n", "a b", "new\nline", "*", ".hidden", "..x", "\udcff"]
        for name in names:
            filled.write_file(name, name.encode("utf-8", "surrogateescape"))
        filled.checkpoint("odd")
        for name in names:
            filled.remove(name)
        filled.restore("odd")
        for name in names:
            assert filled.read_file(name) == name.encode("utf-8", "surrogateescape")

    def test_the_directory_itself_stays(self, filled: Sandbox) -> None:
        filled.checkpoint("before")
        script = "echo here; while [ ! -e go ]; do sleep 0.05; done; cat file"
        process = filled.popen(script)
        process.wait_for_log("here")
        filled.write_file("file", "changed")
        filled.restore("before")
        filled.write_file("go", "")
        assert process.stdout.read() == "here\none\n"

    def test_they_have_names(self, filled: Sandbox) -> None:
        assert filled.checkpoints() == []
        filled.checkpoint("b")
        filled.checkpoint("a-1.2_c")
        assert filled.checkpoints() == ["a-1.2_c", "b"]
        filled.delete_checkpoint("b")
        assert filled.checkpoints() == ["a-1.2_c"]

    def test_a_name_can_be_used_again(self, filled: Sandbox) -> None:
        filled.checkpoint("one")
        filled.write_file("file", "later")
        filled.checkpoint("one")
        filled.write_file("file", "even later")
        filled.restore("one")
        assert filled.read_text("file") == "later"

    def test_an_unknown_name(self, filled: Sandbox) -> None:
        filled.checkpoint("known")
        for verb in (filled.restore, filled.delete_checkpoint):
            with pytest.raises(LookupError, match=NO_CHECKPOINT):
                verb("missing")
        with pytest.raises(LookupError, match=NO_CHECKPOINT), filled.workspace("missing"):
            pass
        assert filled.read_text("file") == "one\n"

    def test_the_plugins_own_name(self, filled: Sandbox) -> None:
        for verb in (filled.checkpoint, filled.restore, filled.delete_checkpoint):
            with pytest.raises(ValueError, match="the plugin's own"):
                verb(PRISTINE)

    @pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "-n", ".hidden", "x" * 101])
    def test_a_bad_name(self, filled: Sandbox, name: str) -> None:
        with pytest.raises(ValueError, match="no name of a checkpoint"):
            filled.checkpoint(name)


class TestPrivateWorkspaces:
    def test_it_is_a_copy_of_its_own(self, filled: Sandbox) -> None:
        filled.checkpoint("start")
        before = tree(filled)
        with filled.workspace("start") as private:
            assert private.workdir != filled.workdir
            assert private.exec("pwd").stdout == private.workdir + "\n"
            assert tree(private) == before
            private.exec("rm -r dir; echo mine >file; touch new")
            assert private.read_text("file") == "mine\n"
            assert [f.name for f in private.list_files()] == ["file", "link", "new"]
            assert tree(filled) == before
        assert tree(filled) == before

    def test_two_do_not_see_each_other(self, filled: Sandbox) -> None:
        filled.checkpoint("start")
        with filled.workspace("start") as one, filled.workspace("start") as two:
            one.write_file("file", "of one")
            assert two.read_text("file") == "one\n"
            assert one.workdir != two.workdir

    def test_it_is_gone_afterwards(self, filled: Sandbox) -> None:
        filled.checkpoint("start")
        with filled.workspace("start") as private:
            path = private.workdir
            assert filled.exists(path)
        assert not filled.exists(path)

    @pytest.mark.core
    def test_every_verb_works_in_it(self, filled: Sandbox) -> None:
        filled.checkpoint("start")
        with filled.workspace("start") as private:
            private.write_file("deep/er/file", "x")
            assert [str(p) for p in private.glob("**/er/*")] == ["deep/er/file"]
            assert private.path("deep").is_dir()
            assert private.popen("cat deep/er/file").stdout.read() == "x"
            assert private.exec("pwd", cwd="deep").stdout == f"{private.workdir}/deep\n"
            private.checkpoint("inner")
            private.remove("deep", recursive=True)
            private.restore("inner")
            assert private.read_text("deep/er/file") == "x"
            assert not filled.exists("deep")

    def test_it_goes_although_something_still_runs_in_it(self, filled: Sandbox) -> None:
        filled.checkpoint("start")
        with filled.workspace("start") as private:
            path = private.workdir
            process = private.popen("echo up; exec sleep 600")
            process.wait_for_log("up")
        assert not filled.exists(path)
        process.end()

    def test_it_leaves_no_mount_on_this_computer(self, filled: Sandbox) -> None:
        filled.checkpoint("start")
        if filled.attachment.channel.name == "agent":
            pytest.skip("the agent's own tests look after its mounts")
        with filled.workspace("start") as private:
            assert private.workdir not in Path("/proc/mounts").read_text()

    @pytest.mark.usefixtures("as_root")
    def test_another_user_can_use_it(self, filled: Sandbox) -> None:
        filled.exec("chmod 644 file")
        filled.checkpoint("start")
        with filled.workspace("start") as private:
            assert private.exec("cat file", user="nobody").stdout == "one\n"
