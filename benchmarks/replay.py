"""What a replayed test costs: 1,000 tests of three execs, beside pytest-recording and no sandbox.

    python benchmarks/replay.py [TESTS] [ROUNDS]

The tests are recorded once, on the local emulator. Then three suites of as many tests run in
turn, each in a process of its own: tests that only compute, tests that ask `fly_sandbox`, and
tests that send the same requests with httpx under pytest-recording, which replays them from
the very same files. Times are of whole pytest processes, imports included, all modules compiled
before, as they are after an install. Of all rounds the best counts: the processor's time, and
in brackets the wall's, which a busy computer makes long. Beside the peak of memory stands how
much of it a quarter of the tests does not need: what a cassette leaves behind would show there
(4000 compares 1,000 cassettes with 4,000).

Two readings of the same times: what a replayed test takes over a plain one, and whole runs,
in which the time of pytest itself is on both sides.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import yaml

TARGET_MS = 2.0
TARGET_TIMES = 3.0


class Figures(NamedTuple):
    """Processor seconds, wall seconds and peak memory in MiB of one run."""

    cpu: float
    wall: float
    memory: float


PLAIN = """
import os
import pytest

@pytest.mark.parametrize("n", range(int(os.environ["TESTS"])))
def test_x(n):
    for i in range(3):
        assert f"{n} {i}\\n".strip() == f"{n} {i}"
"""
SANDBOX = """
import os
import pytest

@pytest.mark.parametrize("n", range(int(os.environ["TESTS"])))
def test_x(fly_sandbox, n):
    for i in range(3):
        assert fly_sandbox.exec(["echo", str(n), str(i)]).stdout == f"{n} {i}\\n"
"""
RECORDING = """
import httpx, os, pytest

@pytest.fixture(scope="session")
def client():
    with httpx.Client() as client:
        yield client

@pytest.fixture(scope="module")
def vcr_config():
    return {{"match_on": ["method", "path", "body"], "record_mode": "none"}}

@pytest.fixture(scope="module")
def vcr_cassette_dir():
    return {cassettes!r}

@pytest.mark.vcr
@pytest.mark.parametrize("n", range(int(os.environ["TESTS"])))
def test_x(client, n):
    for i in range(3):
        body = {body!r} | {{"command": ["echo", str(n), str(i)]}}
        assert client.post({url!r}, json=body).json()["stdout"] == f"{{n}} {{i}}\\n"
"""


def main() -> None:
    """Record, run each suite in turn, and compare."""
    tests = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    with tempfile.TemporaryDirectory() as name:
        project = Path(name)
        (project / "pytest.ini").write_text("[pytest]\n")
        suites = _suites(project, tests)
        few = {
            suite: _run(project, suite, plugins, tests // 4) for suite, plugins in suites.items()
        }
        runs: dict[str, list[Figures]] = {suite: [] for suite in suites}
        for _ in range(rounds):
            for suite, plugins in suites.items():
                runs[suite].append(_run(project, suite, plugins, tests))
    best = {
        suite: Figures(*(min(figures) for figures in zip(*all_of_it, strict=True)))
        for suite, all_of_it in runs.items()
    }
    _tell(best, few, tests)


def _suites(project: Path, tests: int) -> dict[str, list[str]]:
    """Write the suites, and the cassettes of those that replay."""
    (project / "test_plain.py").write_text(PLAIN)
    (project / "test_sandbox.py").write_text(SANDBOX)
    _pytest(project, "test_sandbox.py", ["pytest_flymachines.plugin"], tests, *RECORD)
    cassettes = project / "cassettes" / "test_sandbox.py"
    first = yaml.safe_load((cassettes / "test_x[0].yaml").read_text())["interactions"][0]
    suite = RECORDING.format(
        cassettes=str(cassettes),
        url=first["request"]["uri"],
        body=yaml.safe_load(first["request"]["body"]),
    )
    (project / "test_recording.py").write_text(suite)
    return {
        "test_plain.py": [],
        "test_sandbox.py": ["pytest_flymachines.plugin"],
        "test_recording.py": ["pytest_recording.plugin"],
    }


RECORD = ("--fly-mode=local", "--fly-record=all")


def _run(project: Path, suite: str, plugins: list[str], tests: int) -> Figures:
    started = time.perf_counter()
    usage = _pytest(project, suite, plugins, tests)
    wall = time.perf_counter() - started
    return Figures(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss / 1024)


def _pytest(
    project: Path, suite: str, plugins: list[str], tests: int, *args: str
) -> resource.struct_rusage:
    chosen = [word for plugin in plugins for word in ("-p", plugin)]
    env = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "TESTS": str(tests)}
    env["PYTHONPYCACHEPREFIX"] = str(project / "compiled")
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    output = project / "output"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen, suite, *args],
            cwd=project,
            env=env,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    text = output.read_text()
    if process.returncode or f"{tests} passed" not in text:
        raise SystemExit(f"{suite} failed:\n{text[-4000:]}")
    return usage


def _tell(best: dict[str, Figures], few: dict[str, Figures], tests: int) -> None:
    plain, ours, theirs = best.values()
    print(f"{'':19}processor s (wall)   ms a test over plain   MiB (of 3/4 of the tests)")
    for suite, run in best.items():
        cpu, wall = ((run[i] - plain[i]) / tests * 1000 for i in (0, 1))
        memory = f"{run.memory:.0f} ({run.memory - few[suite].memory:.1f})"
        print(f"{suite:19}{run.cpu:.2f} ({run.wall:.2f}){cpu:17.2f} ({wall:.2f}){memory:>20}")
    extra = (ours.cpu - plain.cpu) / tests * 1000
    times, times_wall = ((theirs[i] - plain[i]) / (ours[i] - plain[i]) for i in (0, 1))
    print(f"replay takes {extra:.2f} ms a test over plain, target at most {TARGET_MS:g}")
    print(
        f"pytest-recording takes {times:.1f} ({times_wall:.1f}) times that, target {TARGET_TIMES:g}"
    )
    whole, whole_wall = (theirs[i] / ours[i] for i in (0, 1))
    print(
        f"of whole runs, with what plain takes, it takes {whole:.1f} ({whole_wall:.1f}) times ours"
    )
    if extra > TARGET_MS or times < TARGET_TIMES:
        raise SystemExit("a target was missed")


if __name__ == "__main__":
    main()
