"""Packing a local work tree and filling a workspace from it, with real git on both sides."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from pytest_flymachines.errors import MachineStartFailed, SettingsError
from pytest_flymachines.repository import check_source, credentials, is_local, pack

GUEST = Path(__file__).parent.parent / "pytest_flymachines" / "guest"


def git(path: Path, *args: str) -> str:
    identity = ["-c", "user.name=T", "-c", "user.email=t@example.com"]
    done = subprocess.run(
        ["git", *identity, *args], cwd=path, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    path = tmp_path / "tree"
    path.mkdir()
    git(path, "init", "-q", "-b", "trunk")
    for n in range(3):
        (path / "counted.txt").write_text(f"{n}\n")
        (path / "old.txt").write_text("old\n")
        git(path, "add", "-A")
        git(path, "commit", "-qm", f"commit {n}")
    git(path, "tag", "v1")
    return path


def unpacked(
    source: Path, target: Path, *, ref: str | None = None, depth: int | None = None
) -> Path:
    target.mkdir()
    guest = target.parent / "root" / "opt" / "pytest-flymachines"
    guest.mkdir(parents=True)
    with pack(source, ref=ref, depth=depth) as bundle:
        (guest / "repo.pack").write_bytes(b"".join(bundle.pieces()))
        subprocess.run(
            ["sh", str(GUEST / "unbundle.sh"), "", "", "", ""],
            cwd=target,
            env=os.environ | {"PYTEST_FLYMACHINES_ROOT": str(target.parent / "root")},
            check=True,
        )
    return target


def files(path: Path) -> set[str]:
    return {str(p.relative_to(path)) for p in path.rglob("*") if ".git" not in p.parts}


def test_a_clean_tree_arrives_with_branch_history_and_tags(tree: Path, tmp_path: Path) -> None:
    got = unpacked(tree, tmp_path / "got")
    assert git(got, "log", "--format=%H %D") == git(tree, "log", "--format=%H %D")
    assert git(got, "status", "--porcelain") == ""
    assert files(got) == files(tree)


def test_uncommitted_untracked_and_deleted_files_arrive_and_ignored_ones_do_not(
    tree: Path, tmp_path: Path
) -> None:
    (tree / ".gitignore").write_text("*.log\n")
    (tree / "noise.log").write_text("x")
    (tree / "counted.txt").write_text("changed\n")
    (tree / "old.txt").unlink()
    (tree / "sub dir").mkdir()
    (tree / "sub dir" / "new\nname").write_bytes(b"\0\xff")
    (tree / "run.sh").write_text("#!/bin/sh\n")
    (tree / "run.sh").chmod(0o755)
    (tree / "link").symlink_to("counted.txt")
    got = unpacked(tree, tmp_path / "got")
    assert files(got) == files(tree) - {"noise.log"}
    assert (got / "sub dir" / "new\nname").read_bytes() == b"\0\xff"
    assert (got / "run.sh").stat().st_mode & 0o111
    assert (got / "link").is_symlink()
    assert git(got, "status", "--porcelain") == git(tree, "status", "--porcelain")
    assert git(got, "rev-parse", "HEAD") == git(tree, "rev-parse", "HEAD")


def test_packing_leaves_no_trace_in_the_users_repository(tree: Path, tmp_path: Path) -> None:
    (tree / "new.txt").write_text("x")
    git(tree, "add", "new.txt")
    before = sorted(p for p in (tree / ".git").rglob("*")), git(tree, "status", "--porcelain")
    unpacked(tree, tmp_path / "got")
    assert (
        sorted(p for p in (tree / ".git").rglob("*")),
        git(tree, "status", "--porcelain"),
    ) == before


@pytest.mark.parametrize("way", ["GIT_CONFIG_GLOBAL", "HOME", "GIT_CONFIG_COUNT"])
def test_no_setting_of_the_users_git_is_in_the_way(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """What it would check, sign, run, lay out in columns or put into new repositories."""
    for number in range(20):
        git(tree, "tag", f"v{number + 2}")
    (tree / "new").write_bytes(b"ends as on Windows\r\nand as here\n")
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for hook in ("pre-commit", "post-checkout", "reference-transaction", "post-index-change"):
        (hooks / hook).write_text(f"#!/bin/sh\ntouch '{tmp_path}/ran'\nexit 1\n")
        (hooks / hook).chmod(0o755)
    (tmp_path / "template").mkdir()
    (tmp_path / "template" / "shallow").write_text("no commit\n")
    settings = {
        "core.safecrlf": "true",
        "core.autocrlf": "input",
        "core.hooksPath": str(hooks),
        "core.fsmonitor": str(hooks / "pre-commit"),
        "core.pager": "false",
        "init.templateDir": str(tmp_path / "template"),
        "commit.gpgSign": "true",
        "tag.gpgSign": "true",
        "color.ui": "always",
        "column.ui": "always",
        "user.useConfigOnly": "true",
        "tag.sort": "-refname",
    }
    config = tmp_path / ".gitconfig"
    lines = [f"[{n.split('.')[0]}]\n\t{n.split('.')[1]} = {v}\n" for n, v in settings.items()]
    with monkeypatch.context() as patch:
        if way == "GIT_CONFIG_COUNT":
            patch.setenv(way, str(len(settings)))
            for number, (name, value) in enumerate(settings.items()):
                patch.setenv(f"GIT_CONFIG_KEY_{number}", name)
                patch.setenv(f"GIT_CONFIG_VALUE_{number}", value)
        else:
            config.write_text("".join(lines))
            patch.delenv("GIT_CONFIG_GLOBAL", raising=False)
            patch.setenv(way, str(config if way == "GIT_CONFIG_GLOBAL" else tmp_path))
        bundle = tmp_path / "bundle"
        with pack(tree, ref=None, depth=None) as packed:
            shutil.copy(packed.path, bundle)
    heads = git(tree, "ls-remote", str(bundle))
    assert len([line for line in heads.splitlines() if "refs/tags/v" in line]) == 21
    assert "refs/worktree/now" in heads
    assert not (tmp_path / "ran").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to somebody else")
def test_a_tree_of_another_user_is_refused_until_git_is_told_to_trust_it(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (tree, tree / ".git"):
        os.chown(path, 12345, 12345)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    with pytest.raises(SettingsError, match=f"belongs to another user.*safe.directory {tree}"):
        check_source(str(tree), tree)
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "safe.directory")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", str(tree))
    check_source(str(tree), tree)
    with pack(tree, ref=None, depth=None) as bundle:
        assert bundle.branch == "trunk"


def test_a_hook_of_git_that_runs_the_tests_means_no_other_repository(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"GIT_DIR": ".git", "GIT_INDEX_FILE": "x", "GIT_WORK_TREE": "/"}.items():
        monkeypatch.setenv(name, str(tmp_path / "another" / value))
    with pack(tree, ref=None, depth=None) as bundle:
        assert bundle.branch == "trunk"


def test_a_shallow_clone_of_continuous_integration_arrives(tree: Path, tmp_path: Path) -> None:
    shallow = tmp_path / "shallow"
    git(tmp_path, "clone", "-q", "--depth", "1", tree.as_uri(), str(shallow))
    (shallow / "dirty").write_text("x")
    got = unpacked(shallow, tmp_path / "got")
    assert git(got, "rev-list", "--count", "HEAD") == "1"
    assert git(got, "status", "--porcelain") == "?? dirty"
    git(got, "fsck")


def test_depth_cuts_the_history_of_a_local_tree(tree: Path, tmp_path: Path) -> None:
    got = unpacked(tree, tmp_path / "got", depth=2)
    assert git(got, "rev-list", "--count", "HEAD") == "2"
    git(got, "fsck")


def test_a_named_ref_arrives_without_uncommitted_changes(tree: Path, tmp_path: Path) -> None:
    (tree / "dirty").write_text("x")
    got = unpacked(tree, tmp_path / "got", ref="HEAD~1")
    assert (got / "counted.txt").read_text() == "1\n"
    assert not (got / "dirty").exists()


def test_a_detached_head_a_subdirectory_and_a_linked_worktree_arrive(
    tree: Path, tmp_path: Path
) -> None:
    linked = tmp_path / "linked"
    git(tree, "worktree", "add", "-q", "--detach", str(linked), "HEAD~1")
    (linked / "dirty").write_text("x")
    (linked / "sub").mkdir()
    got = unpacked(linked / "sub", tmp_path / "got")
    assert files(got) == files(linked) - {"sub"}  # git knows no empty directories
    assert git(got, "rev-parse", "HEAD") == git(linked, "rev-parse", "HEAD")
    assert subprocess.run(["git", "symbolic-ref", "-q", "HEAD"], cwd=got).returncode == 1


def test_the_remote_arrives_without_its_credentials(tree: Path, tmp_path: Path) -> None:
    git(tree, "remote", "add", "origin", "https://me:hunter2@example.com/x.git")
    got = unpacked(tree, tmp_path / "got")
    assert git(got, "remote", "get-url", "origin") == "https://example.com/x.git"


def test_a_ref_that_does_not_exist_names_itself(tree: Path) -> None:
    with pytest.raises(MachineStartFailed, match="nowhere"), pack(tree, ref="nowhere", depth=None):
        pass


@pytest.mark.parametrize(
    ("repo", "complaint"),
    [
        ("missing", "no directory"),
        (".", "not a git work tree"),
        ("https://me:hunter2@example.com/x", "FLY_GIT_TOKEN"),
    ],
)
def test_what_cannot_be_cloned_is_refused_before_a_machine_exists(
    repo: str, complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=complaint) as caught:
        check_source(repo, tmp_path)
    assert "hunter2" not in str(caught.value)


def test_without_git_on_this_computer_a_local_path_is_refused(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert shutil.which("git") is None
    with pytest.raises(SettingsError, match="no git on PATH"):
        check_source(str(tree), Path("/"))


def test_urls_and_paths_are_told_apart(tmp_path: Path) -> None:
    assert [is_local(r) for r in (".", "../x", "/a/b", "~/x", "a/b:c")] == [True] * 5
    assert [is_local(r) for r in ("https://h/x", "git@h:x/y", "file:///x")] == [False] * 3


def test_credentials_come_from_the_environment_of_the_right_host() -> None:
    env = {"GITHUB_TOKEN": "gh", "GITLAB_TOKEN": "gl"}
    assert credentials("https://github.com/a/b", env)["FLY_GIT_TOKEN"] == "gh"
    assert credentials("https://gitlab.com/a/b", env)["FLY_GIT_USERNAME"] == "oauth2"
    assert credentials("https://example.com/a/b", env) == {}
    assert credentials("https://example.com/a/b", env | {"FLY_GIT_TOKEN": "own"}) == {
        "FLY_GIT_TOKEN": "own",
        "FLY_GIT_USERNAME": "x-access-token",
    }
    assert credentials(".", env) == {}
