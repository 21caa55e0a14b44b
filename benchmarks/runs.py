"""What a run costs as its workers grow, and what many runs leave behind.

    python benchmarks/runs.py [--workers 1,4,16] [--latency 50] [--runs 200] [--local-runs 20]

With these defaults it takes a few minutes; for what grows slowly ask for `--runs 1000`.

First: the requests to the Machines API, and the seconds until the first test has ended, of runs
against an emulator that answers so many milliseconds late. Then: so many tiny runs, two at a
time in one checkout, each forked from a process that has imported pytest, and what is left of
them: processes, temporary directories, lock files, machines, and descriptors and memory of the
emulator that served them all. Last the same for runs, of processes of their own, in local mode,
each with an emulator of its own: there mounts and cgroups could be left, too.
"""

from __future__ import annotations

import argparse
import compileall
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
from statistics import median

import pytest_flymachines

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.e2e.cloud import Cloud, Project, cloud, end, until
from tests.e2e.forks import alive, forks

BARE = """
import pathlib, pytest, time

@pytest.mark.parametrize("number", range(32))
def test_it(number):
    pathlib.Path(f"{time.time()}.first").touch()
"""
FIRST = """
import pathlib, pytest, time

@pytest.fixture(scope="session")
def sandbox(request):
    asked = time.time()
    found = request.getfixturevalue("fly_sandbox")
    pathlib.Path(f"{asked}-{time.time()}.got").touch()
    return found

@pytest.mark.parametrize("number", range(32))
def test_it(sandbox, number):
    sandbox.exec("true")
    pathlib.Path(f"{time.time()}.first").touch()
"""
#: Memory is looked at after so many runs.
EACH = 50
TINY = "def test_it(fly_sandbox): fly_sandbox.exec('true')\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", default="1,4,16")
    parser.add_argument("--latency", type=float, default=50, metavar="MS")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--local-runs", type=int, default=20)
    given = parser.parse_args()
    # as installing does, which some environments forbid to Python itself
    compileall.compile_dir(Path(pytest_flymachines.__file__).parent, quiet=1)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch)
        with cloud(latency_ms=given.latency) as fly:
            for workers in map(int, filter(None, given.workers.split(","))):
                cost(fly, workers, path / str(workers))
        if given.runs:
            with cloud() as fly:
                remains(fly, given.runs, path / "tiny")
        if given.local_runs:
            remains(None, given.local_runs, path / "local")


def cost(fly: Cloud, workers: int, path: Path) -> None:
    """Print the requests of one run, its time to the first test, and what of it is the plugin's."""
    bare_s = first_test_s(Project(path / "bare", BARE), workers, {})
    fly.forget_requests()
    first_s = first_test_s(Project(path / "sandbox", FIRST), workers, fly.environment)
    requests = fly.requests()
    kinds = Counter(request.kind for request in requests)
    launch_s, attach_s = waited_s(path / "sandbox")
    print(
        f"{workers:3} worker(s): {len(requests)} requests, first test after {first_s:.1f} s; "
        f"without sandbox after {bare_s:.1f} s, so a sandbox takes {first_s - bare_s:.1f} s"
    )
    print(f"    {dict(sorted(kinds.items()))}")
    others = f", the {len(attach_s)} others in {median(attach_s):.2f} s more" if attach_s else ""
    print(f"    the worker that asks first has its sandbox {launch_s:.2f} s later{others}")


def waited_s(path: Path) -> tuple[float, list[float]]:
    """Seconds from the first question for a sandbox to its answer, and what each other one took.

    Those who ask while the launch is under way wait for its end, which is not counted again.
    """
    times = [tuple(map(float, found.stem.split("-"))) for found in path.glob("*.got")]
    asked, launched = min(time[0] for time in times), min(time[1] for time in times)
    others = sorted(time for time in times if time[1] != launched)
    return launched - asked, [got - max(asked, launched) for asked, got in others]


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
    with forks() as from_:

        def one(number: int) -> None:
            if fly is None:
                ended = project.run("-q", env=where, mode="local")
                assert ended.code == 0, ended.output
                return
            output = path / f"output{number % 50}"
            arguments, environment = project.arguments("-q"), project.environment(where)
            group = from_.start(arguments, path, environment, output.name)
            assert until(lambda: not alive(group), 120, every_s=0.02), output.read_text()
            assert "1 passed" in output.read_text(), output.read_text()

        one(0)
        before, began = left(fly, path), time.monotonic()
        print(f"{'live' if fly else 'local'}, after 1 run: {before}{memory(fly)}")
        for done in range(0, runs, EACH):
            numbers = range(done, min(done + EACH, runs))
            with ThreadPoolExecutor(2) as two_at_once:
                list(two_at_once.map(one, numbers))
            if fly:
                print(f"    after {numbers.stop + 1} runs:{memory(fly)}", flush=True)
    each = (time.monotonic() - began) / runs
    until(lambda: left(fly, path) == before, 20)  # other runs on this computer may be ending
    after = left(fly, path)
    print(f"    after {runs + 1} runs: {after} ({each:.2f} s a run)")
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


def memory(fly: Cloud | None) -> str:
    """The emulator's resident memory, for printing."""
    if fly is None:
        return ""
    fields = Path(f"/proc/{fly.emulator.pid}/statm").read_text().split()
    return f" emulator's resident memory {int(fields[1]) * os.sysconf('SC_PAGE_SIZE') / 1e6:.0f} MB"


if __name__ == "__main__":
    main()
