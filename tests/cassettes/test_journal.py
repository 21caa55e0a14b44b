"""What a worker has noted of what it recorded, for the case that it dies."""

from __future__ import annotations

import stat
from pathlib import Path

from pytest_flymachines.cassettes.claims import Seen
from pytest_flymachines.cassettes.journal import Journal, take

ONE, OTHER = ("A_TOKEN", b"0123456789"), ("B_TOKEN", b"\xff9876543210")
FILE = Path("cassettes/a.yaml")


def test_everything_is_taken_once_in_order(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    for _ in range(2):
        journal = Journal(shared)
        journal.note([ONE])
        journal.note([ONE], FILE)
        journal.note([ONE, OTHER])
    assert take(shared) == [Seen([ONE, OTHER], [(str(FILE), 1)])] * 2
    assert take(shared) == []


def test_the_half_of_a_line_is_left_out(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.note([ONE])
    journal.note([ONE, OTHER])
    (path,) = tmp_path.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_bytes(path.read_bytes()[:-3])
    assert take(tmp_path) == [Seen([ONE], [])]


def test_what_is_known_already_is_not_written_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.note([])
    assert not list(tmp_path.iterdir())
    journal.note([ONE])
    (path,) = tmp_path.iterdir()
    before = path.read_bytes()
    journal.note([ONE])
    assert path.read_bytes() == before


def test_a_process_alone_writes_nothing(tmp_path: Path) -> None:
    Journal(None).note([ONE], tmp_path / FILE)
    assert not list(tmp_path.iterdir())
