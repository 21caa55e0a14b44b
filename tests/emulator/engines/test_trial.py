"""Whether machines can have disks: tried, not guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_flymachines.emulator.engines import disks, trial
from pytest_flymachines.emulator.engines.base import EngineError

pytestmark = pytest.mark.anyio


async def test_a_computer_that_refuses_the_mount_has_directories() -> None:
    tried: list[bool] = []

    async def attempt(disk: bool) -> str:
        tried.append(disk)
        if disk:
            raise EngineError("mount of /dev/loop0: Permission denied")
        return "started"

    started, why = await trial.with_disk_or_without(attempt)
    assert started == "started"
    if missing := disks.missing():
        assert (tried, why) == ([False], missing)
    else:
        assert (tried, why) == ([True, False], "mount of /dev/loop0: Permission denied")
    assert trial.unlimited(why) == (
        f"volumes are directories, without a limit of their size ({why})",
    )
    assert trial.unlimited("") == ()


async def test_a_computer_where_nothing_starts_says_so() -> None:
    async def attempt(disk: bool) -> None:
        raise EngineError(f"disk: {disk}")

    with pytest.raises(EngineError, match="disk: False"):
        await trial.with_disk_or_without(attempt)


@pytest.mark.skipif(bool(disks.missing()), reason=disks.missing())
async def test_disk_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    disk = disks.Disk(tmp_path / "none" / "disk.ext4")
    with pytest.raises(disks.DiskError, match="none"):
        disk.make(2**20)
    too_small = disks.Disk(tmp_path / "disk.ext4")
    (tmp_path / "content").mkdir()
    (tmp_path / "content" / "file").write_bytes(b"x" * 2**22)
    with pytest.raises(disks.DiskError):
        too_small.make(2**20, tmp_path / "content")
    assert not too_small.file.exists()
    assert too_small.mounted_at(tmp_path) == -1
