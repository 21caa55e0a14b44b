"""What it costs to record: peak memory and time of a run that moves large things.

A repository, a tree up and down, and the output of a command, each of so many MB, and each in a
run of its own: first without `--fly-record`, then with it. Peaks are those of pytest's process.

    python benchmarks/recording.py [MEGABYTES]
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SUITE = """
import os
from pathlib import Path

SIZE = int(os.environ["SIZE"])

def test_repository(fly_sandbox):
    assert fly_sandbox.exists("data")

def test_nothing(fly_sandbox):
    assert fly_sandbox.exec("true").ok

def test_tree(fly_sandbox, tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(os.urandom(SIZE))
    fly_sandbox.upload(tree, "/root/tree")
    fly_sandbox.download("/root/tree", tmp_path / "back")

def test_output(fly_sandbox):
    fly_sandbox.exec(f"head -c {SIZE} /dev/urandom | base64", on_output=lambda *_: None)
"""
PLUGIN = """
import resource

def pytest_unconfigure():
    print("PEAK", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def run(project: Path, name: str, size: int, *args: str) -> tuple[float, float]:
    """Peak in MB and seconds of one test."""
    started = time.perf_counter()
    plugins = ["-p", "pytest_flymachines.plugin", "-p", "peak", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plugins, "--fly-mode=local", *args, "-k", name],
        cwd=project,
        env={
            **{k: v for k, v in os.environ.items() if not k.startswith("FLY_")},
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONPATH": str(project),
            "SIZE": str(size),
        },
        capture_output=True,
        text=True,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    (peak,) = re.findall(r"PEAK (\d+)", done.stdout)
    return int(peak) / 1024, time.perf_counter() - started


def make_project(directory: Path, size: int) -> Path:
    project = directory / "project"
    project.mkdir()
    (project / "test_it.py").write_text(SUITE)
    (project / "peak.py").write_text(PLUGIN)
    (project / "pytest.ini").write_text("[pytest]\n")
    repository = directory / "repository"
    repository.mkdir()
    (repository / "data").write_bytes(os.urandom(size))
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.com", "-C", str(repository)]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "data"]):
        subprocess.run([*git, *command], check=True)
    return project


def main() -> None:
    size = int(sys.argv[1] if len(sys.argv) > 1 else 100) << 20
    with tempfile.TemporaryDirectory() as scratch:
        project = make_project(Path(scratch), size)
        base, _ = run(project, "test_nothing", 0)
        print(f"{size >> 20} MB each; a run that moves nothing peaks at {base:.0f} MB")
        for name in ("test_repository", "test_tree", "test_output"):
            repo = [f"--fly-repo={project.parent}/repository"] if "repository" in name else []
            plain, plain_s = run(project, name, size, *repo)
            record = ["--fly-record=all", f"--fly-cassettes={project}/{name}"]
            peak, peak_s = run(project, name, size, *repo, *record)
            print(
                f"{name:16} peak {plain:4.0f} MB, recorded {peak:4.0f} MB ({peak / plain:.2f}x); "
                f"{plain_s:5.1f} s, recorded {peak_s:5.1f} s ({peak_s / plain_s:.2f}x)"
            )


if __name__ == "__main__":
    main()
