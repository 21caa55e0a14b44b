"""Control groups: which are found, what is written to them, what is read."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_flymachines.emulator.engines import ENGINES, cgroups
from pytest_flymachines.emulator.engines.cgroups import Groups, MachineGroups, pids_limit
from pytest_flymachines.emulator.engines.supervisor.spawner import remove_cgroup


@pytest.fixture
def groups() -> Iterator[Groups]:
    found = cgroups.find()
    yield found
    for path in found.parents:
        remove_cgroup(Path(path))


def test_parents_exist_and_name_their_process(groups: Groups) -> None:
    for path in groups.parents:
        assert Path(path).is_dir()
        assert Path(path).name.startswith(f"pytest-flymachines-{os.getpid()}-")


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user may have no control group")
def test_root_can_limit_or_freeze(groups: Groups) -> None:
    assert groups.limits or groups.unified


def test_sweep_removes_groups_of_dead_processes_only(groups: Groups) -> None:
    if not groups.parents:
        pytest.skip("no control group of this user")
    alive = Path(groups.parents[0])
    with subprocess.Popen(["true"]) as process:
        process.wait()
    dead = alive.with_name(f"pytest-flymachines-{process.pid}-abcdef")
    dead.mkdir()
    (dead / "m1").mkdir()
    cgroups.sweep()
    assert not dead.exists()
    assert alive.exists()


class TestPlan:
    """Version 2 with plain files for the kernel's: it cannot be had where version 1 is in use."""

    def test_version_2(self, tmp_path: Path) -> None:
        (tmp_path / "memory.swap.max").touch()
        groups = MachineGroups(tmp_path / "m", unified_limits=True, legacy={})
        plan = groups.plan(256, 512)
        assert groups.limits
        assert plan["directories"] == [str(tmp_path / "m")]
        assert dict(plan["limits"]) == {  # type: ignore[call-overload]
            f"{tmp_path}/m/memory.max": str(256 * 2**20),
            f"{tmp_path}/m/memory.swap.max": str(512 * 2**20),
            f"{tmp_path}/m/pids.max": "1024",
        }
        assert plan["into"] == str(tmp_path / "m")
        assert plan["oom"] == [f"{tmp_path}/m/memory.events"]

    def test_version_1_with_the_freezer_of_version_2(self, tmp_path: Path) -> None:
        legacy = {name: tmp_path / name / "m" for name in ("memory", "pids")}
        groups = MachineGroups(tmp_path / "m", unified_limits=False, legacy=legacy)
        (tmp_path / "memory").mkdir()
        (tmp_path / "memory/memory.memsw.limit_in_bytes").touch()
        plan = groups.plan(512, 256)
        assert groups.limits
        assert dict(plan["limits"]) == {  # type: ignore[call-overload]
            f"{tmp_path}/memory/m/memory.limit_in_bytes": str(512 * 2**20),
            f"{tmp_path}/memory/m/memory.memsw.limit_in_bytes": str(768 * 2**20),
            f"{tmp_path}/pids/m/pids.max": "2048",
        }
        assert plan["tasks"] == [f"{tmp_path}/memory/m/tasks", f"{tmp_path}/pids/m/tasks"]

    def test_memory_used_does_not_count_what_can_be_dropped(self, tmp_path: Path) -> None:
        (tmp_path / "memory.current").write_text("1000\n")
        (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 300\n")
        groups = MachineGroups(tmp_path, unified_limits=True, legacy={})
        assert groups.memory_used_bytes() == 700

    def test_no_group_no_limits(self) -> None:
        groups = Groups().of("m")
        assert not groups.limits
        assert groups.paths == []
        assert groups.memory_used_bytes() is None


@pytest.mark.parametrize(("memory_mb", "expected"), [(256, 1024), (1024, 4096), (65536, 16384)])
def test_more_memory_means_more_processes(memory_mb: int, expected: int) -> None:
    assert pids_limit(memory_mb) == expected


@pytest.mark.parametrize("groups_are", ["as they are", "none"])
@pytest.mark.parametrize("engine_name", ["bubblewrap", "process"])
@pytest.mark.anyio
async def test_an_engine_says_where_a_machines_memory_is_not_limited(
    engine_name: str,
    groups_are: str,
    groups: Groups,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if groups_are == "none":
        monkeypatch.setattr(cgroups, "find", Groups)
    limited = groups_are == "as they are" and groups.limits
    engine = ENGINES[engine_name](tmp_path)
    try:
        probe = await engine.probe()
    finally:
        await engine.close()
    assert probe.works, probe.why
    assert (cgroups.NO_LIMITS in probe.notes) is not limited
