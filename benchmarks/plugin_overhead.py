"""What the installed plugin adds to a run that has no sandbox tests.

    python benchmarks/plugin_overhead.py [pairs]

Runs pytest over one empty test with and without the plugin, in pairs whose order alternates, and
compares each pair: CPU time (user and system, of the process itself), which a busy computer
hardly changes, and wall time. The interval is one in which the true median lies with 95 %.
No other plugin of this environment is loaded; and nothing heavy may be imported. Modules are
compiled once before, as installing does it, also where the environment forbids to keep that.
"""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

AIM_MS = 10.0
TEST = """
import sys

def test_nothing():
    with open("modules", "w") as file:
        file.write("\\n".join(sys.modules))
"""
ARGS = ["-q", "-p", "no:cacheprovider", "-p", "no:faulthandler", "test_nothing.py"]
PLUGIN = ["-p", "pytest_flymachines.plugin"]
ENVIRONMENT = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
ENVIRONMENT.pop("PYTHONDONTWRITEBYTECODE", None)
HEAVY = {"asyncio", "httpcore", "httpx", "filelock", "msgspec", "rich", "stamina", "vcr", "yaml"}


def run(directory: str, *extra: str) -> tuple[float, float]:
    """Milliseconds of CPU and of wall time of one run."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", *extra, *ARGS],
        cwd=directory,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - start
    assert process.returncode == 0
    return (used.ru_utime + used.ru_stime) * 1000, wall * 1000


def modules(directory: str) -> set[str]:
    """Top-level modules of the last run."""
    return {name.partition(".")[0] for name in Path(directory, "modules").read_text().split("\n")}


def interval(values: list[float]) -> tuple[float, float]:
    """Where the median lies with 95 %, by the order of the values alone (binomial)."""
    ordered = sorted(values)
    n = len(ordered)
    off = math.ceil(0.98 * math.sqrt(n))
    return ordered[max(0, n // 2 - off)], ordered[min(n - 1, n // 2 + off)]


def main() -> None:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    alone: list[tuple[float, float]] = []
    with_plugin: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "test_nothing.py").write_text(TEST)
        run(directory)
        before = modules(directory)
        run(directory, *PLUGIN)  # leaves what Python compiles
        added = modules(directory) - before
        for number in range(pairs):
            for plugin in (False, True) if number % 2 else (True, False):
                measured = run(directory, *(PLUGIN if plugin else ()))
                (with_plugin if plugin else alone).append(measured)
    for index, what in enumerate(("CPU", "wall")):
        theirs = [run[index] for run in alone]
        ours = [run[index] for run in with_plugin]
        more = [b - a for a, b in zip(theirs, ours, strict=True)]
        low, high = interval(more)
        base, whole = statistics.median(theirs), statistics.median(ours)
        print(
            f"{what:5} pytest alone {base:6.1f} ms, with the plugin {whole:6.1f} ms "
            f"(ratio {whole / base:.3f}); added {statistics.median(more):.2f} ms "
            f"({low:.2f} to {high:.2f}), aim: < {AIM_MS:.0f} ms"
        )
    print(f"imported more: {', '.join(sorted(added))}; heavy: {', '.join(added & HEAVY) or 'none'}")


if __name__ == "__main__":
    main()
