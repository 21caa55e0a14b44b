"""What a run costs as its workers grow, and what a thousand runs leave behind.

    python benchmarks/runs.py [--workers 1,4,16] [--latency 50] [--runs 1000]

First: the requests to the Machines API, and the seconds until the first test has ended, of runs
against an emulator that answers so many milliseconds late. Then: so many tiny runs one after
the other, and what is left of them: processes, temporary directories, lock files, machines,
and descriptors of the emulator that served them all.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.e2e.cloud import Cloud, Project, cloud, end

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
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch)
        with cloud(latency_ms=given.latency) as fly:
            for workers in map(int, given.workers.split(",")):
                cost(fly, workers, path / str(workers))
        with cloud() as fly:
            remains(fly, given.runs, path / "tiny")


def cost(fly: Cloud, workers: int, path: Path) -> None:
    """Print the requests of one run, and its time to the first test."""
    fly.forget_requests()
    project = Project(path, FIRST)
    began = time.time()
    ended = end(project.start("-q", "-n", str(workers), env=fly.environment), 300)
    assert ended.code == 0, ended.output
    first = min(float(name.stem) for name in path.glob("*.first"))
    requests = fly.requests()
    kinds = Counter(request.kind for request in requests)
    # what starts the workers' interpreters is no cost of ours, and is told apart
    created = next(r for r in requests if r.kind == "POST machines")
    print(
        f"{workers:3} worker(s): {len(requests)} requests, first test after {first - began:.1f} s "
        f"({first - created.time:.2f} s after the create was answered)"
    )
    print(f"    {dict(sorted(kinds.items()))}")


def remains(fly: Cloud, runs: int, path: Path) -> None:
    """Print what is there before and after so many runs."""
    project = Project(path, TINY)
    before = None
    for number in range(runs + 1):
        ended = project.run("-q", env=fly.environment)
        assert ended.code == 0, ended.output
        if number == 0:
            before = left(fly, path)
    after = left(fly, path)
    print(f"after 1 run:    {before}")
    print(f"after {runs + 1} runs: {after}")
    assert after == before, "something accumulates"


def left(fly: Cloud, path: Path) -> dict[str, int]:
    """What a run could leave; pytest itself keeps the base directories of its last three runs."""
    listing = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    temp = path / "tmp"
    bases = {p for p in temp.glob("pytest-of-*/pytest-*") if not p.is_symlink()}
    return {
        "processes": sum(str(path) in line for line in listing.stdout.splitlines()),
        "temporary directories": sum(1 for p in temp.iterdir() if "pytest-of" not in p.name),
        "run directories": sum(1 for base in bases for _ in base.glob("fly-*")),
        "lock files": sum(1 for base in bases for _ in base.rglob("*.lock") if base.exists()),
        "machines": len(fly.machines()),
        "volumes": len(fly.volumes()),
        "emulator's descriptors": sum(1 for _ in Path(f"/proc/{fly.emulator.pid}/fd").iterdir()),
    }


if __name__ == "__main__":
    main()
