"""What a machine costs on each engine: start, exec, connect, end, memory; and beside Docker.

Run `python benchmarks/engines.py [ENGINE...]`. For docker it runs a daemon of its own where
`dockerd` and `busybox` are installed and it is root, else it takes DOCKER_HOST or the usual
sockets. Figures are medians, so a busy computer shows in them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from pytest_flymachines.emulator.engines import ENGINES
from pytest_flymachines.emulator.engines.base import EngineError
from tests.emulator.engines import dockerd
from tests.emulator.engines.lab import Lab

MACHINES = 10
EXECS = 50
MARKS = (b"supervisor.spawner", b"/.fly/init", b"containerd-shim")
PROGRAMS = (b"cat\0", b"sleep\0", b"/sbin/docker-init")


def main() -> None:
    engines = sys.argv[1:] or list(ENGINES)
    figures = {}
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        if "docker" in engines and not os.environ.get("DOCKER_HOST") and not dockerd.missing():
            place = Path(directory, "dockerd")
            place.mkdir()
            os.environ["DOCKER_HOST"] = stack.enter_context(dockerd.daemon(place))
        for name in engines:
            place = Path(directory, name)
            place.mkdir()
            try:
                figures[name] = asyncio.run(measure(name, place))
            except EngineError as error:
                print(f"{name}: {error}")
    show(figures)


async def measure(name: str, directory: Path) -> dict[str, float]:
    engine = ENGINES[name](directory / "engine")
    lab = Lab(engine, directory / "engine", directory, dockerd.IMAGE)
    try:
        began = time.perf_counter()
        probe = await engine.probe()
        if not probe.works:
            raise EngineError(probe.why)
        probe_ms = (time.perf_counter() - began) * 1000
        before = _held_kb()
        starts = [await timed_ms(lab.start) for _ in range(MACHINES)]
        memory_mb = (_held_kb() - before) / MACHINES / 1024
        machine = lab.machines[0]
        execs = [await timed_ms(lambda: machine.exec(["true"], timeout_s=30)) for _ in range(EXECS)]

        async def connect() -> None:
            with contextlib.suppress(ConnectionRefusedError):
                (await machine.connect(9)).close()

        connects = [await timed_ms(connect) for _ in range(EXECS)]
        ends = [await timed_ms(running.kill) for running in lab.machines]
        return {
            "probe, ms": probe_ms,
            "start, ms": statistics.median(starts),
            "exec true, ms": statistics.median(execs),
            "connect (refused), ms": statistics.median(connects),
            "kill, ms": statistics.median(ends),
            "memory of an idle machine, MB": memory_mb,
        }
    finally:
        await lab.end()
        await engine.close()


async def timed_ms(work: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await work()
    return (time.perf_counter() - began) * 1000


def show(figures: dict[str, dict[str, float]]) -> None:
    names = list(figures)
    print(f"{'':32}" + "".join(f"{name:>14}" for name in names))
    for row in next(iter(figures.values()), {}):
        cells = "".join(f"{figures[name][row]:14.1f}" for name in names)
        print(f"{row:32}{cells}")
        if "docker" in figures and (docker := figures["docker"][row]):
            ratios = "".join(f"{figures[name][row] / docker:14.3f}" for name in names)
            print(f"{'  beside docker':32}{ratios}")


def _held_kb() -> int:
    """Proportional memory of all that stands between us and the machines, and of the machines."""
    total = 0
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes()
            if words.startswith(PROGRAMS) or any(mark in words for mark in MARKS):
                total += _pss_kb(process)
    return total


def _pss_kb(process: Path) -> int:
    for line in (process / "smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0


if __name__ == "__main__":
    main()
