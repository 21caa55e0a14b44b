"""However the emulator ends, its machines end, and leave nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

from pytest_flymachines.emulator.engines import ENGINES
from pytest_flymachines.emulator.engines.supervised import SupervisedMachine
from pytest_flymachines.emulator.engines.supervisor.tree import descendants
from tests.emulator.engines.lab import DEADLINE_S, Lab, output, parent_of
from tests.emulator.engines.parent import RUNAWAYS

pytestmark = pytest.mark.timeout(120)

T = TypeVar("T")


@contextlib.contextmanager
def emulator_like(engine_name: str, directory: Path) -> Iterator[tuple[int, set[int]]]:
    """A process with machines: its pid, and those of all processes below it."""
    command = [sys.executable, "-m", "tests.emulator.engines.parent", engine_name, str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield process.pid, set(descendants(process.pid))
        finally:
            process.kill()


def wait_until_gone(pids: set[int]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while left := {pid: command_of(pid) for pid in pids if alive(pid)}:
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    return False


def command_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text()[:200]
    return ""


def wait_until_no_cgroup_of(pid: int) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while left := cgroups_of(pid):
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.02)


def cgroups_of(pid: int) -> list[str]:
    name = f"pytest-flymachines-{pid}-"
    return [path for path, _, _ in os.walk("/sys/fs/cgroup") if name in path]


def test_kill_of_the_emulator_leaves_nothing(engine_name: str, tmp_path: Path) -> None:
    with emulator_like(engine_name, tmp_path) as (pid, below):
        assert len(below) > 10
        os.kill(pid, signal.SIGKILL)
        wait_until_gone(below)
        wait_until_no_cgroup_of(pid)


def test_kill_of_its_whole_session_leaves_nothing(engine_name: str, tmp_path: Path) -> None:
    """As a terminal that closes, or a CI runner that has lost patience."""
    with emulator_like(engine_name, tmp_path) as (pid, below):
        os.killpg(pid, signal.SIGKILL)
        wait_until_gone(below)
        wait_until_no_cgroup_of(pid)


def test_kill_of_the_spawner_ends_the_machines(engine_name: str, tmp_path: Path) -> None:
    with emulator_like(engine_name, tmp_path) as (pid, below):
        (spawner,) = [child for child in below if parent_of(child) == pid]
        os.kill(spawner, signal.SIGKILL)
        wait_until_gone(below)


@pytest.mark.anyio
async def test_kill_of_a_supervisor_ends_its_machine_and_no_other(lab: Lab) -> None:
    other = await lab.start()
    victim = await lab.start("sleep", "7010")
    await output(victim, RUNAWAYS)
    assert isinstance(victim, SupervisedMachine)
    below = set(descendants(victim._pid))
    assert len(below) > 3
    os.kill(victim._pid, signal.SIGKILL)
    status = await victim.wait()
    assert status.signal == signal.SIGKILL
    await asyncio.to_thread(wait_until_gone, below)
    assert await output(other, "echo fine") == "fine"


@pytest.mark.anyio
async def test_fifty_machines_at_once_start_and_end_with_nothing_left(
    engine_name: str, tmp_path: Path
) -> None:
    fds = {path.name for path in Path("/proc/self/fd").iterdir()}
    before = set(descendants(os.getpid()))
    engine = ENGINES[engine_name](tmp_path / "engine")
    lab = Lab(engine, tmp_path / "engine", tmp_path)
    await asyncio.gather(*(lab.start() for _ in range(50)))
    said = await asyncio.gather(*(output(m, "sleep 0.2; echo $$") for m in lab.machines))
    assert len(said) == 50
    await lab.end()
    await engine.close()
    wait_until_gone(set(descendants(os.getpid())) - before)
    assert {path.name for path in Path("/proc/self/fd").iterdir()} <= fds
    left = {path.name for path in tmp_path.rglob("*") if path.is_dir()}
    assert left <= {"engine"}


@pytest.mark.skipif(os.geteuid() != 0, reason="without root no machine mounts among our files")
@pytest.mark.anyio
async def test_mounts_of_a_machine_without_a_namespace_go_with_it(tmp_path: Path) -> None:
    engine = ENGINES["process"](tmp_path / "engine")
    lab = Lab(engine, tmp_path / "engine", tmp_path)
    machine = await lab.start()
    script = "mkdir 'a place' && mount -t tmpfs none 'a place' && echo >'a place/file'"
    await output(machine, f'cd "$PYTEST_FLYMACHINES_ROOT/tmp" && {script}')
    await lab.end()
    await engine.close()
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    assert not list(tmp_path.glob("m*/"))


@pytest.mark.anyio
async def test_close_ends_machines_that_still_run(engine_name: str, tmp_path: Path) -> None:
    engine = ENGINES[engine_name](tmp_path / "engine")
    lab = Lab(engine, tmp_path / "engine", tmp_path)
    machine = await lab.start("sh", "-c", RUNAWAYS.removesuffix("exit 0") + "wait")
    below = set(descendants(os.getpid()))
    await engine.close()
    assert (await machine.wait()).signal == signal.SIGKILL
    wait_until_gone({pid for pid in below if "700" in command_of(pid)})


def test_machines_outlive_the_thread_that_started_them(engine_name: str, tmp_path: Path) -> None:
    """A parent-death signal is bound to a thread, and an event loop may run in any."""
    loop = asyncio.new_event_loop()
    lab = Lab(ENGINES[engine_name](tmp_path / "engine"), tmp_path / "engine", tmp_path)

    def in_a_thread_of_its_own(work: Coroutine[None, None, T]) -> T:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(loop.run_until_complete, work).result()

    machine = in_a_thread_of_its_own(lab.start())
    assert in_a_thread_of_its_own(output(machine, "echo still there")) == "still there"
    in_a_thread_of_its_own(lab.end())
    in_a_thread_of_its_own(lab.engine.close())
    loop.close()
