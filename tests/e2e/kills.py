"""Kills real recording runs at random moments: each cassette is the old or the new one, whole.

    python -m tests.e2e.kills [TIMES]

A run of two workers on the local emulator records twelve tests, one of them with a large body.
It is killed with all its processes (SIGKILL), over and over: somewhere between its start and its
end, or, the other half of the times, after the first file was written. After each kill every file
is looked at, and in the end what is there must replay, and a prune leaves nothing else.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pytest_flymachines.cassettes.catalog import Catalog
from pytest_flymachines.cassettes.glances import blobs_named_in
from pytest_flymachines.cassettes.locks import temporaries
from pytest_flymachines.cassettes.pruning import delete, left_over

from .cloud import Project, end

TESTS = 12
ASKS = 3
SUITE = f"""
import os
import pytest

@pytest.fixture(scope="session")
def made(fly_sandbox):
    fly_sandbox.exec("echo made >made")
    return "made"

@pytest.mark.parametrize("n", range({TESTS}))
def test_x(fly_sandbox, made, n):
    generation = os.environ["GENERATION"]
    for _ in range({ASKS} - 1):
        fly_sandbox.exec(["echo", generation])
    large = 400_000 if n == 5 else 100
    command = f"head -c {{large}} /dev/zero | tr '\\\\0' x; echo {{generation}}"
    assert fly_sandbox.exec(command).stdout.endswith(generation + "\\n")
"""


def problems(directory: Path, generations: range) -> Iterator[str]:
    """What is not whole in a directory of cassettes."""
    catalog = Catalog(directory)
    for path in catalog.paths():
        entry = catalog.read(path)
        if entry.problem:
            yield entry.problem
        elif "test" in entry.header:
            bodies = [request.body.decode() for request in entry.requests]
            whose = {g for g in generations for body in bodies if f"generation-{g}." in body}
            if len(bodies) != ASKS or len(whose) != 1:
                yield f"{path}: {len(bodies)} requests, of generations {sorted(whose)}"
        elif not entry.requests:
            yield f"{path}: empty"


def start(project: Path, generation: int) -> subprocess.Popen[str]:
    env = {"GENERATION": f"generation-{generation}."}
    return Project(project, SUITE).start("--fly-record=all", "-n", "2", env=env, mode="local")


def record(project: Path) -> tuple[float, float]:
    """Record to the end; the seconds until the first file was written, and from there."""
    started = time.time()
    ended = end(start(project, 0))
    assert ended.code == 0, ended.output
    first = min(path.stat().st_mtime for path in project.rglob("*.yaml"))
    return first - started, time.time() - first


def kill(project: Path, generation: int, after_s: float, *, after_first: bool) -> None:
    """Record, and kill it; the time counts from its start, or from its first file."""
    before = times(project)
    run = start(project, generation)
    while after_first and times(project) == before and run.poll() is None:
        time.sleep(0.002)
    time.sleep(after_s)
    with suppress(ProcessLookupError):
        os.killpg(run.pid, signal.SIGKILL)
    end(run)


def times(project: Path) -> list[int]:
    return [path.stat().st_mtime_ns for path in sorted(project.glob("cassettes/test_it.py/*.yaml"))]


def main(count: int, seed: int) -> None:
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as scratch:
        project = Path(scratch) / "project"
        first_s, rest_s = record(project)
        directory = project / "cassettes"
        written = half = 0
        before = {path: path.read_bytes() for path in directory.rglob("*.yaml")}
        assert len(before) == TESTS + 2, sorted(before)
        for generation in range(1, count + 1):
            late = bool(generation % 2)
            after_s = chance.uniform(0, rest_s if late else first_s + rest_s)
            kill(project, generation, after_s, after_first=late)
            half += len(temporaries(directory))
            found = list(problems(directory, range(count + 1)))
            assert not found, f"seed {seed}, kill {generation}: {found}"
            after = {path: path.read_bytes() for path in directory.rglob("*.yaml")}
            assert after.keys() == before.keys()
            written += sum(after[path] != before[path] for path in before)
            before = after
        delete(directory, left_over(directory))
        named = {digest for path in before for digest in blobs_named_in(path)}
        files = {path for path in directory.rglob("*") if path.is_file()}
        assert files == before.keys() | {directory / "blobs" / digest for digest in named}
        replay(project)
        print(f"{half} temporary files were left, which the next recording or a prune removed")
        print(f"{count} kills, {written} cassettes written anew meanwhile, all whole (seed {seed})")


def replay(project: Path) -> None:
    """What each run wrote, as it wrote it."""
    suite = Project(project, SUITE)
    written: dict[str, list[str]] = {}
    for path in (project / "cassettes" / "test_it.py").glob("*.yaml"):
        generation = path.read_text().partition("generation-")[2].partition(".")[0]
        written.setdefault(generation, []).append(f"test_it.py::{path.stem}")
    for generation, nodeids in written.items():
        env = {"GENERATION": f"generation-{generation}."}
        suite.run(*nodeids, "--fly-missing-cassette=fail", env=env, mode="replay").has(
            f"{len(nodeids)} passed"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50, random.randrange(1000))
