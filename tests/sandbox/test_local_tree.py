"""Trees on this computer: what killed processes leave, and what changes while it is read."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

from pytest_flymachines.sandbox.local_tree import LocalFile, LocalTree, unpack

# Unpacks a large file, says when it has begun, and waits.
_HALF = """
import sys, time
from pathlib import Path
from pytest_flymachines.agent.server import pax
from pytest_flymachines.sandbox.local_tree import unpack

def half():
    yield pax.header(pax.Member(b"large", pax.FILE, 0o644, 1 << 30, 0)) + bytes(1 << 20)
    print("begun", flush=True)
    time.sleep(600)

unpack(half(), Path(sys.argv[1]), (), lambda size: None)
"""


@pytest.fixture
def halfway(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that unpacks to `tmp_path / "target"`, and is in the middle of it."""
    argv = [sys.executable, "-c", _HALF, str(tmp_path / "target")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        yield process
        process.kill()


def get(target: Path) -> None:
    """Unpack a small tree."""
    source = target.with_name(f"{target.name}-source")
    source.mkdir()
    (source / "file").write_text("x")
    unpack(LocalTree(source), target, (), lambda size: None)


def temporary(directory: Path) -> list[Path]:
    return list(directory.glob(".flymachines-*"))


def age(path: Path) -> None:
    long_ago = time.time() - 3600
    os.utime(path, (long_ago, long_ago))


def test_what_a_killed_process_has_left_goes_with_the_next_download(
    halfway: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    halfway.send_signal(signal.SIGKILL)
    halfway.wait()
    (left,) = temporary(tmp_path)
    assert not (tmp_path / "target").exists()
    get(tmp_path / "at-once")  # it may just have been made
    assert temporary(tmp_path) == [left]
    age(left)
    get(tmp_path / "later")
    assert temporary(tmp_path) == []


@pytest.mark.usefixtures("halfway")
def test_what_another_process_still_fills_stays(tmp_path: Path) -> None:
    (filled,) = temporary(tmp_path)
    age(filled)
    get(tmp_path / "other")
    assert temporary(tmp_path) == [filled]


def test_a_file_that_changes_its_size_gives_what_was_announced_or_fails(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(1 << 20))
    pieces = iter(LocalFile(path))
    next(pieces)
    os.truncate(path, 300_000)
    with pytest.raises(OSError, match="became shorter while it was read"):
        list(pieces)
    path.write_bytes(bytes(1 << 20))
    pieces = iter(LocalFile(path))
    first = next(pieces)
    with path.open("ab") as file:
        file.write(b"more")
    assert b"".join(chain([first], pieces)) == bytes(1 << 20)
