"""Volumes of a user who may have block devices: their size is real."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from pytest_flymachines.emulator.engines import disks
from pytest_flymachines.emulator.launch import EmulatorProcess, launch
from pytest_flymachines.emulator.volume_files import GIB
from tests.emulator.conftest import App, Fly, Machine, eventually
from tests.emulator.engines.lab import devices
from tests.emulator.fidelity import shows

pytestmark = pytest.mark.skipif(bool(disks.missing()), reason=disks.missing())

MIB = 2**20


def with_volume(app: App, volume: str) -> Machine:
    return app.create("sleep", "inf", mounts=[{"volume": volume, "path": "/data"}])


def sh(machine: Machine, text: str) -> dict[str, Any]:
    return machine.exec("sh", "-c", text)


def restart(machine: Machine) -> None:
    newest = machine.events()[0]["id"]
    machine.post("restart")
    machine.wait("started", from_event_id=newest)


def size_of(machine: Machine) -> int:
    return int(sh(machine, "stat -fc '%b %S' /data | (read b s; echo $((b * s)))")["stdout"])


def new(app: App, **body: Any) -> dict[str, Any]:
    made: dict[str, Any] = app.fly.ok("POST", f"{app.path}/volumes", {"name": "data", **body})
    return made


def started(state: Path) -> EmulatorProcess:
    return launch(engine="bubblewrap", apps=["disks"], state=state)


@shows(
    "volumes",
    "root's have the size that they say: `df` shows it, and more is ENOSPC",
    "docs",
)
@shows(
    "PUT A/volumes/{volume}/extend",
    "of a volume that is mounted: at once, or `needs_restart` where the kernel refuses",
    "docs",
)
@shows("GET A/volumes/{volume}", "`bytes_used` is what `df` says in the machine", "docs")
@shows(
    "POST A/volumes/{volume}/snapshots",
    "of a running machine: its file system stands still meanwhile",
    "docs",
)
def test_a_volume_is_a_disk(tmp_path: Path) -> None:
    with started(tmp_path / "state") as emulator:
        assert not any("without a limit" in note for note in emulator.notes)
        fly = Fly(emulator)
        app = App(fly, "disks")
        volume = new(app, size_gb=1)
        path = f"{app.path}/volumes/{volume['id']}"
        machine = with_volume(app, volume["id"])
        machine.wait("started")
        assert 0.85 * GIB < size_of(machine) < GIB
        written = sh(machine, "fallocate -l 200M /data/file && echo then > /data/text")
        assert written["exit_code"] == 0, written
        full = sh(machine, "fallocate -l 2G /data/more")
        assert full["exit_code"] != 0
        assert "No space left on device" in full["stderr"]
        sh(machine, "rm /data/more; sync")
        assert 200 * MIB <= fly.ok("GET", path)["bytes_used"] < 240 * MIB
        fly.ok("POST", f"{path}/snapshots")
        eventually(lambda: fly.ok("GET", f"{path}/snapshots")[0]["status"] == "created")
        [snapshot] = fly.ok("GET", f"{path}/snapshots")
        sh(machine, "echo now > /data/text")
        restored = new(app, snapshot_id=snapshot["id"])
        forked = new(app, source_volume_id=volume["id"], size_gb=2)
        for copy, text, size_gb in ((restored, "then\n", 3), (forked, "now\n", 2)):
            other = with_volume(app, copy["id"])
            other.wait("started")
            assert sh(other, "cat /data/text")["stdout"] == text
            assert 0.85 * size_gb * GIB < size_of(other) < size_gb * GIB
            other.destroy()
        if fly.ok("PUT", f"{path}/extend", {"size_gb": 4})["needs_restart"]:
            restart(machine)
        assert 3.4 * GIB < size_of(machine) < 4 * GIB
        assert sh(machine, "cat /data/text")["stdout"] == "now\n"
        machine.destroy()
        assert 200 * MIB <= fly.ok("GET", path)["bytes_used"] < 240 * MIB
        eventually(lambda: fly("DELETE", path).status_code == 200)
        assert not list((tmp_path / "state" / "volumes").glob(f"{volume['id']}*"))
        fly.close()
    eventually(lambda: not devices(tmp_path))


@shows(
    "volumes",
    "`rootfs.size_gb`: with the engine bubblewrap, root's machines have no more room than that",
    "openapi",
)
def test_a_root_file_system_has_a_size(tmp_path: Path) -> None:
    with started(tmp_path / "state") as emulator:
        fly = Fly(emulator)
        app = App(fly, "disks")
        for persist, left in (("never", 1), ("always", 0)):
            rootfs = {"persist": persist, "size_gb": 1}
            machine = app.create("sleep", "inf", wait="started", rootfs=rootfs)
            assert sh(machine, "fallocate -l 100M /root/file")["exit_code"] == 0
            for place in ("/root", "/usr/bin"):
                full = sh(machine, f"fallocate -l 2G {place}/more")
                assert "No space left on device" in full["stderr"], place
            sh(machine, "rm -f /root/more /usr/bin/more")
            restart(machine)
            assert sh(machine, "test -e /root/file")["exit_code"] == left
            machine.destroy()
            eventually(lambda: not devices(tmp_path))
        unlimited = app.create("sleep", "inf", wait="started")
        assert not devices(tmp_path)
        unlimited.destroy()
        fly.close()


def test_nothing_is_left_of_a_killed_emulator_and_the_next_finds_its_volumes(
    tmp_path: Path,
) -> None:
    state = tmp_path / "state"
    with started(state) as emulator:
        fly = Fly(emulator)
        app = App(fly, "disks")
        volume = new(app, size_gb=1)["id"]
        machine = with_volume(app, volume)
        machine.wait("started")
        sh(machine, "echo kept > /data/file")
        assert devices(tmp_path)
        os.kill(emulator.pid, signal.SIGKILL)
        fly.close()
    with started(state) as emulator:
        fly = Fly(emulator)
        machine = Machine(App(fly, "disks"), machine.id)
        machine.post("start")
        machine.wait("started")
        assert sh(machine, "cat /data/file")["stdout"] == "kept\n"
        os.kill(emulator.pid, signal.SIGKILL)
        fly.close()
    eventually(lambda: not devices(tmp_path))
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


@pytest.mark.parametrize("engine", ["bubblewrap", "process"])
@shows("containers", "a `temp_dir` has its `size_mb`, for root; all of them find it empty", "docs")
def test_a_shared_directory_has_a_size(tmp_path: Path, engine: str) -> None:
    volumes = [{"name": "common", "temp_dir": {"storage_type": "memory", "size_mb": 16}}]
    mounts = [{"name": "common", "path": "/common"}]
    own = {"image": "alpine", "exec": ["sleep", "1000"], "mounts": mounts}
    containers = [{"name": name, **own} for name in ("one", "two")]
    state = tmp_path / "state"
    with launch(engine=engine, apps=["disks"], state=state) as emulator:
        fly = Fly(emulator)
        app = App(fly, "disks")
        body = {"config": {"volumes": volumes, "containers": containers}}
        machine = Machine(app, fly.ok("POST", app.machines, body)["id"])

        def inside(name: str, script: str) -> dict[str, Any]:
            text = f"cd $PYTEST_FLYMACHINES_ROOT/common && {script}"
            return machine.exec("sh", "-c", text, container=name)

        for _ in range(2):
            machine.wait("started")
            eventually(lambda: len(devices(tmp_path)) == 1)
            listed = eventually(lambda: inside("two", "stat -Lc %a . && ls")["stdout"])
            assert listed == "1777\nlost+found\n"
            assert inside("one", "fallocate -l 8M file")["exit_code"] == 0
            full = inside("two", "ls file && fallocate -l 8M more")
            assert full["stdout"] == "file\n"
            assert "No space left on device" in full["stderr"]
            restart(machine)
        machine.destroy()
        fly.close()
    eventually(lambda: not devices(tmp_path))
