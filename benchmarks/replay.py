"""What a replayed test costs: 1,000 tests of three execs, beside pytest-recording and no sandbox.

    python benchmarks/replay.py [TESTS] [ROUNDS]

The tests are recorded once, on the local emulator. Then three suites of as many tests run in
turn, each in a process of its own: tests that only compute, tests that ask `fly_sandbox`, and
tests that send the same requests with httpx under pytest-recording, which replays them from
the very same files. Times are of whole pytest processes, imports included, the best of all
rounds: the processor's time, which counts, and in brackets the wall's, which a busy computer
makes long.
"""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

TARGET_MS = 2.0
TARGET_TIMES = 3.0

Figures = tuple[float, float, float]

PLAIN = """
import pytest

@pytest.mark.parametrize("n", range({tests}))
def test_x(n):
    for i in range(3):
        assert f"{{n}} {{i}}\\n".strip() == f"{{n}} {{i}}"
"""
SANDBOX = """
import pytest

@pytest.mark.parametrize("n", range({tests}))
def test_x(fly_sandbox, n):
    for i in range(3):
        assert fly_sandbox.exec(["echo", str(n), str(i)]).stdout == f"{{n}} {{i}}\\n"
"""
RECORDING = """
import httpx, pytest

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
@pytest.mark.parametrize("n", range({tests}))
def test_x(client, n):
    for i in range(3):
        body = {body!r} | {{"command": ["echo", str(n), str(i)]}}
        assert client.post({url!r}, json=body).json()["stdout"] == f"{{n}} {{i}}\\n"
"""


def main() -> None:
    """Record, run each suite in turn, and compare."""
    tests = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    with tempfile.TemporaryDirectory() as name:
        project = Path(name)
        (project / "pytest.ini").write_text("[pytest]\n")
        suites = _suites(project, tests)
        best: dict[str, Figures] = dict.fromkeys(suites, (float("inf"), 0.0, 0.0))
        for _ in range(rounds):
            for suite, plugins in suites.items():
                best[suite] = min(best[suite], _run(project, suite, plugins))
        few = {
            suite: _run(project, suite, plugins, "-k", "1")[2] for suite, plugins in suites.items()
        }
    _tell(best, few, tests)


def _suites(project: Path, tests: int) -> dict[str, list[str]]:
    """Write the suites, and the cassettes of those that replay."""
    (project / "test_plain.py").write_text(PLAIN.format(tests=tests))
    (project / "test_sandbox.py").write_text(SANDBOX.format(tests=tests))
    _pytest(project, "test_sandbox.py", ["pytest_flymachines.plugin"], *RECORD)
    cassettes = project / "cassettes" / "test_sandbox.py"
    first = yaml.safe_load((cassettes / "test_x[0].yaml").read_text())["interactions"][0]
    suite = RECORDING.format(
        tests=tests,
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


def _run(project: Path, suite: str, plugins: list[str], *args: str) -> Figures:
    """Processor seconds, wall seconds and peak memory in MiB of one run."""
    started = time.perf_counter()
    usage = _pytest(project, suite, plugins, *args)
    wall = time.perf_counter() - started
    return usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss / 1024


def _pytest(project: Path, suite: str, plugins: list[str], *args: str) -> resource.struct_rusage:
    chosen = [word for plugin in plugins for word in ("-p", plugin)]
    output = project / "output"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen, suite, *args],
            cwd=project,
            env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    text = output.read_text()
    if process.returncode or not re.search(r"\d+ passed", text):
        raise SystemExit(f"{suite} failed:\n{text[-4000:]}")
    return usage


def _tell(best: dict[str, Figures], few: dict[str, float], tests: int) -> None:
    plain = best["test_plain.py"][0]
    extra = {suite: (seconds - plain) / tests * 1000 for suite, (seconds, _, _) in best.items()}
    for suite, (seconds, wall, memory) in best.items():
        print(
            f"{suite:18} {seconds:6.2f} s ({wall:.2f})   {extra[suite]:5.2f} ms a test over plain"
            f"   {memory:4.0f} MiB ({few[suite]:.0f} with a quarter of the tests)"
        )
    ours, theirs = extra["test_sandbox.py"], extra["test_recording.py"]
    print(f"replay: {ours:.2f} ms a test, target at most {TARGET_MS:g}")
    print(f"pytest-recording takes {theirs / ours:.1f} times as long, target {TARGET_TIMES:g}")
    if ours > TARGET_MS or theirs / ours < TARGET_TIMES:
        raise SystemExit("a target was missed")


if __name__ == "__main__":
    main()
