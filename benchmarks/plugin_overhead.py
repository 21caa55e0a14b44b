"""What the installed plugin adds to a run that has no sandbox tests.

    python benchmarks/plugin_overhead.py [pairs]

Runs pytest over one empty test with and without the plugin, in turn, and compares.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ARGS = ["-q", "-p", "no:cacheprovider", "test_nothing.py"]


def run(directory: str, *extra: str) -> float:
    """Seconds of one run."""
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "pytest", *extra, *ARGS],
        cwd=directory,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return time.perf_counter() - start


def main() -> None:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "test_nothing.py").write_text("def test_nothing(): pass\n")
        without, with_plugin = [], []
        for _ in range(pairs):
            without.append(run(directory, "-p", "no:flymachines"))
            with_plugin.append(run(directory))
    added = [b - a for a, b in zip(without, with_plugin, strict=True)]
    print(f"pytest alone        median {statistics.median(without) * 1e3:7.1f} ms")
    print(f"with the plugin     median {statistics.median(with_plugin) * 1e3:7.1f} ms")
    print(f"added, paired       median {statistics.median(added) * 1e3:7.1f} ms")
    print(f"ratio               {statistics.median(with_plugin) / statistics.median(without):.3f}")


if __name__ == "__main__":
    main()
