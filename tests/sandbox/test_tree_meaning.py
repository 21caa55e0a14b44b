"""What a tree means, whatever its times and umask are and however it comes in pieces."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_flymachines.sandbox.local_tree import LocalTree
from pytest_flymachines.sandbox.tree_meaning import TreeMeaning


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    for name in ("a", "sub/b", f"sub/{'long' * 40}", "sub/ü"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(name.encode() * 100)
        (top / name).chmod(0o644)
    (top / "link").symlink_to("a")
    for directory in (top, top / "sub"):
        directory.chmod(0o755)
    return top


def digest(tree: Path, size: int = 1 << 20) -> str:
    data = b"".join(LocalTree(tree))
    meaning = TreeMeaning()
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    assert b"".join(meaning.of(pieces)) == data
    return meaning.digest()


def test_it_is_what_recordings_have(tree: Path) -> None:
    assert digest(tree) == "55fc598ef1ef806e"


def test_times_are_no_part_of_it(tree: Path) -> None:
    found = digest(tree)
    for path in [tree, *tree.rglob("*")]:
        os.utime(path, (1, 2.5), follow_symlinks=False)
    os.utime(tree / "a", (1, 3))
    assert digest(tree) == found


def test_what_the_umask_decides_is_no_part_of_it(tree: Path) -> None:
    found = digest(tree)
    (tree / "a").chmod(0o600)
    (tree / "sub").chmod(0o775)
    assert digest(tree) == found


@pytest.mark.parametrize("size", [1, 511, 512, 700, 10_240])
def test_pieces_are_no_part_of_it(tree: Path, size: int) -> None:
    assert digest(tree, size) == digest(tree)


def test_everything_else_is(tree: Path) -> None:
    found = {digest(tree)}
    (tree / "a").write_bytes(b"other")
    found.add(digest(tree))
    (tree / "a").chmod(0o755)
    found.add(digest(tree))
    (tree / "sub" / "b").rename(tree / "sub" / "c")
    found.add(digest(tree))
    (tree / "sub" / f"{'long' * 40}").rename(tree / "sub" / f"{'long' * 41}")
    found.add(digest(tree))
    (tree / "link").unlink()
    (tree / "link").symlink_to("b")
    found.add(digest(tree))
    assert len(found) == 6
