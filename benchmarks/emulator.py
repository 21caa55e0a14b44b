"""The emulator under load: requests a second, and 200 machines at once.

`python benchmarks/emulator.py [--engine bubblewrap] [--machines 200]`

Prints, for a client that keeps its connection: how many `get` a second and their p99 with one
machine; the same for `get` and `list` with all; create to started as machines grow in number, in
ten equal parts, and how the last part compares with the first; exec with all machines running;
what a machine takes of this computer's memory; how long it takes to destroy all; and what was
left behind. CPU is the processor time of the emulator's own process for each, which a busy
computer changes little. Machines run `sleep inf`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pytest_flymachines.emulator.engines.supervisor.tree import descendants
from pytest_flymachines.emulator.launch import EmulatorProcess, launch

CONFIG = {"image": "debian:stable-slim", "init": {"exec": ["sleep", "inf"]}}
PARTS = 10
CLIENTS = 8


class Api:
    """One connection to the API of an app."""

    def __init__(self, emulator: EmulatorProcess) -> None:
        address = urlsplit(emulator.api_url)
        self._connection = HTTPConnection(str(address.hostname), address.port, timeout=120)
        self._headers = {"Authorization": f"Bearer {emulator.token}"}

    def __call__(self, method: str, path: str, body: object = None) -> Any:
        """The answer to one request below the app's machines."""
        content = json.dumps(body) if body is not None else None
        self._connection.request(method, f"/v1/apps/bench/machines{path}", content, self._headers)
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {text[:200]!r}")
        return json.loads(text) if text else None

    def create(self) -> str:
        """A machine, once it is started; its id."""
        made: str = self("POST", "", {"config": CONFIG})["id"]
        self("GET", f"/{made}/wait?state=started&timeout=60")
        return made

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


def timed(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def report(name: str, times: list[float], elapsed_s: float, busy_s: float) -> None:
    times = sorted(times)
    p50, p99 = times[len(times) // 2], times[min(len(times) - 1, len(times) * 99 // 100)]
    rate = len(times) / elapsed_s
    own = busy_s / len(times)
    print(
        f"{name:34} {rate:8.1f}/s   p50 {p50 * 1e3:7.2f} ms   p99 {p99 * 1e3:7.2f} ms"
        f"   CPU {own * 1e3:6.2f} ms"
    )


def measure(
    name: str,
    emulator: EmulatorProcess,
    work: Callable[[Api], object],
    count: int,
    clients: int = 1,
) -> None:
    """Do something `count` times, by some clients at once."""

    def client(share: int) -> list[float]:
        with contextlib.closing(Api(emulator)) as api:
            return [timed(lambda: work(api)) for _ in range(share)]

    begin, busy = time.perf_counter(), cpu_s(emulator.pid)
    with ThreadPoolExecutor(clients) as pool:
        times = [t for part in pool.map(client, [count // clients] * clients) for t in part]
    suffix = f", {clients} clients" if clients > 1 else ""
    elapsed_s = time.perf_counter() - begin
    report(f"{name}{suffix}", times, elapsed_s, cpu_s(emulator.pid) - busy)


def grow(emulator: EmulatorProcess, count: int) -> list[str]:
    """Create machines one after the other; prints how long each part of them took."""
    machines: list[str] = []
    means: list[float] = []
    everything: list[float] = []
    busy = cpu_s(emulator.pid)
    with contextlib.closing(Api(emulator)) as api:
        for part in range(PARTS):
            size = count * (part + 1) // PARTS - count * part // PARTS
            times = [timed(lambda: machines.append(api.create())) for _ in range(size)]
            means.append(statistics.mean(times))
            everything += times
            first = len(machines) - size + 1
            which = f"  create to started, {first:3} to {len(machines):3}"
            print(f"{which}: mean {means[-1] * 1e3:7.1f} ms")
    report("create to started", everything, sum(everything), cpu_s(emulator.pid) - busy)
    print(f"{'last tenth over first tenth':34} {means[-1] / means[0]:8.2f}")
    return machines


def cpu_s(pid: int) -> float:
    """What a process has had of the processors: other work on this computer does not count."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def proportional_bytes(pid: int) -> int:
    """Memory of a process and all below it; what they share counts once."""
    total = 0
    for process in (pid, *descendants(pid)):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def available_bytes() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))


@contextlib.contextmanager
def nothing_left(emulator: EmulatorProcess) -> Iterator[None]:
    """Say what of the machines is there afterwards that was not there before."""

    def look() -> tuple[int, int, int, int]:
        return (
            sum(1 for _ in descendants(emulator.pid)),
            len(list(Path(f"/proc/{emulator.pid}/fd").iterdir())),
            sum(f"-{emulator.pid}-" in path for path, _, _ in os.walk("/sys/fs/cgroup")),
            len(Path("/proc/self/mountinfo").read_text().splitlines()),
        )

    before = look()
    yield
    deadline = time.monotonic() + 15
    while (after := look()) != before and time.monotonic() < deadline:
        time.sleep(0.1)
    names = ("processes", "descriptors", "control groups", "mounts")
    left = [f"{a - b:+} {n}" for n, a, b in zip(names, after, before, strict=True) if a != b]
    print(f"{'left when all were destroyed':34} {', '.join(left) or 'nothing'}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--engine", default="bubblewrap")
    parser.add_argument("--machines", type=int, default=200)
    options = parser.parse_args()
    with launch(engine=options.engine, apps=["bench"], timeout_s=120) as emulator:
        print(f"engine {emulator.engine}; {os.cpu_count()} CPUs")
        with contextlib.closing(Api(emulator)) as api:
            api("DELETE", f"/{api.create()}?force=true")
            one = api.create()
            measure("get, 1 machine", emulator, lambda api: api("GET", f"/{one}"), 2000)
            measure("get, 1 machine", emulator, lambda api: api("GET", f"/{one}"), 4000, CLIENTS)
            run = {"command": ["true"]}
            measure("exec, 1 machine", emulator, lambda api: api("POST", f"/{one}/exec", run), 200)
            api("DELETE", f"/{one}?force=true")
            api("GET", f"/{one}/wait?state=destroyed")
        with nothing_left(emulator):
            resident, available = proportional_bytes(emulator.pid), available_bytes()
            machines = grow(emulator, options.machines)
            grown = (proportional_bytes(emulator.pid) - resident) / options.machines
            taken = (available - available_bytes()) / options.machines
            print(f"{'memory a machine, processes alone':34} {grown / 2**20:8.2f} MiB")
            print(f"{'memory a machine, with the kernel':34} {taken / 2**20:8.2f} MiB")
            n = len(machines)
            some = machines[n // 2]
            measure(f"get, {n} machines", emulator, lambda api: api("GET", f"/{some}"), 2000)
            measure(f"list, {n} machines", emulator, lambda api: api("GET", ""), 100)
            measure(
                f"list summaries, {n} machines", emulator, lambda a: a("GET", "?summary=true"), 100
            )
            exec_one = lambda api: api("POST", f"/{some}/exec", run)  # noqa: E731
            measure(f"exec, {n} machines", emulator, exec_one, 200)
            begin = time.perf_counter()
            with ThreadPoolExecutor(CLIENTS) as pool:
                list(pool.map(lambda machine: destroy(emulator, machine), machines))
            rate = n / (time.perf_counter() - begin)
            print(f"{f'destroy, {CLIENTS} at a time':34} {rate:8.1f}/s")


def destroy(emulator: EmulatorProcess, machine: str) -> None:
    with contextlib.closing(Api(emulator)) as api:
        api("DELETE", f"/{machine}?force=true")
        api("GET", f"/{machine}/wait?state=destroyed&timeout=60")


if __name__ == "__main__":
    main()
