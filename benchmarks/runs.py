"""What a run costs as its workers grow, and what a thousand runs leave behind.

    python benchmarks/runs.py [--workers 1,4,16] [--latency 50] [--runs 1000] [--local-runs 100]

First: the requests to the Machines API, and the seconds until the first test has ended, of runs
against an emulator that answers so many milliseconds late. Then: so many tiny runs, two at a
time in one checkout, and what is left of them: processes, temporary directories, lock files,
machines, and descriptors and memory of the emulator that served them all. Last the same for runs
in local mode, each with an emulator of its own: there mounts and cgroups could be left, too.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.e2e.cloud import Cloud, Project, cloud, end, until

BARE = """
import pathlib, pytest, time

@pytest.mark.parametrize("number", range(32))
def test_it(number):
    pathlib.Path(f"{time.time()}.first").touch()
"""
FIRST = """
import pathlib, pytest, time

@pytest.mark.parametrize("number", range(32))
def test_it(fly_sandbox, number):
    fly_sandbox.exec("true")
    pathlib.Path(f"{time.time()}.first").touch()
"""
TINY = "def test_it(fly_sandbox): fly_sandbox.exec('true')\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", default="1,4,16")
    parser.add_argument("--latency", type=float, default=50, metavar="MS")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--local-runs", type=int, default=100)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch)
        with cloud(latency_ms=given.latency) as fly:
            for workers in map(int, given.workers.split(",")):
                cost(fly, workers, path / str(workers))
        if given.runs:
            with cloud() as fly:
                remains(fly, given.runs, path / "tiny")
        if given.local_runs:
            remains(None, given.local_runs, path / "local")


def cost(fly: Cloud, workers: int, path: Path) -> None:
    """Print the requests of one run, and its time to the first test."""
    bare_s = first_test_s(Project(path / "bare", BARE), workers, {})
    fly.forget_requests()
    first_s = first_test_s(Project(path / "sandbox", FIRST), workers, fly.environment)
    requests = fly.requests()
    kinds = Counter(request.kind for request in requests)
    print(
        f"{workers:3} worker(s): {len(requests)} requests, first test after {first_s:.1f} s; "
        f"without sandbox after {bare_s:.1f} s, so a sandbox takes {first_s - bare_s:.1f} s"
    )
    print(f"    {dict(sorted(kinds.items()))}")


def first_test_s(project: Project, workers: int, env: dict[str, str]) -> float:
    """Seconds from the start of pytest to the end of its first test."""
    began = time.time()
    mode = "live" if env else "replay"
    ended = end(project.start("-q", "-n", str(workers), env=env, mode=mode), 300)
    assert ended.code == 0, ended.output
    return min(float(name.stem) for name in project.path.glob("*.first")) - began


def remains(fly: Cloud | None, runs: int, path: Path) -> None:
    """Print what is there after the first and after so many more runs, here or in local mode."""
    project = Project(path, TINY)
    home = path / "home"
    home.mkdir()
    where = {"HOME": str(home), **(fly.environment if fly else {})}

    def one(_: int) -> None:
        ended = project.run("-q", env=where, mode="live" if fly else "local")
        assert ended.code == 0, ended.output

    one(0)
    before, began = left(fly, path), time.monotonic()
    with ThreadPoolExecutor(2) as two_at_once:
        list(two_at_once.map(one, range(runs)))
    each = (time.monotonic() - began) / runs
    until(lambda: left(fly, path) == before, 20)  # other runs on this computer may be ending
    after = left(fly, path)
    print(f"{'live' if fly else 'local'}, after 1 run: {before}")
    print(f"    after {runs + 1} runs: {after} ({each:.2f} s a run)")
    if fly:
        print(f"    the emulator's resident memory: {memory_mb(fly):.0f} MB")
    assert after == before, "something accumulates"


def left(fly: Cloud | None, path: Path) -> dict[str, int]:
    """What a run could leave; pytest itself keeps the base directories of its last three runs.

    A process of a run is known by its environment, where TMPDIR is, whatever it is called.
    """
    temp = path / "tmp"
    bases = {p for p in temp.glob("pytest-of-*/pytest-*") if not p.is_symlink()}
    counts = {
        "processes": sum(str(temp).encode() in one for one in environments()),
        "temporary files": sum(1 for p in temp.iterdir() if "pytest-of" not in p.name),
        "run directories": sum(1 for base in bases for _ in base.glob("fly-*")),
        "lock files": sum(1 for base in bases for _ in base.rglob("*.lock")),
        "files in the home": sum(1 for p in (path / "home").rglob("*") if p.is_file()),
        "mounts": sum(str(path) in line for line in Path("/proc/mounts").read_text().splitlines()),
        "cgroups": sum(not path.exists() for path in owners_of_cgroups()),
    }
    if fly:
        counts |= {
            "machines": len(fly.machines()),
            "volumes": len(fly.volumes()),
            "emulator's descriptors": sum(
                1 for _ in Path(f"/proc/{fly.emulator.pid}/fd").iterdir()
            ),
        }
    return counts


def owners_of_cgroups() -> Iterator[Path]:
    """Processes that the names of emulators' control groups bear."""
    # the groups of other runs come and go meanwhile
    for directory, names, _ in os.walk("/sys/fs/cgroup", onerror=lambda _: None):
        for name in names:
            if re.fullmatch(r"pytest-flymachines-\d+-\w+", name):
                yield Path("/proc") / name.split("-")[2]
        names[:] = [name for name in names if (Path(directory) / name).exists()]


def environments() -> Iterator[bytes]:
    """Of every process that may be looked at."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            yield path.read_bytes()


def memory_mb(fly: Cloud) -> float:
    fields = Path(f"/proc/{fly.emulator.pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    main()
