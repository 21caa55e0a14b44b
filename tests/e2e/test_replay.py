"""The recordings of `examples/`, which lie in `cassettes/`, replay where there is no network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def replay(copy: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """pytest over the example in a namespace that has not even a loopback.

    Plugins are those that it needs; pytest-rerunfailures opens a socket of its own under xdist.
    """
    mapped = [] if os.geteuid() == 0 else ["--map-root-user"]
    namespace = ["unshare", *mapped, "--net"]
    names = ["flymachines", "no:cacheprovider", *(["xdist", "randomly"] if "-n" in args else [])]
    options = ["--fly-missing-cassette=fail", *(f"-p{name}" for name in names), *args]
    return subprocess.run(
        [*namespace, sys.executable, "-m", "pytest", *options],
        cwd=copy / "examples" / "tally",
        # an ordinary user is called root in there, and may find root's own directory in /tmp
        env={
            **os.environ,
            "PYTEST_DEBUG_TEMPROOT": str(copy),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        },
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another path than the one that was recorded at."""
    path = tmp_path_factory.mktemp("elsewhere")
    for name in ("examples", "cassettes"):
        shutil.copytree(ROOT / name, path / name)
    return path


@pytest.mark.parametrize("workers", ["0", "4"])
@pytest.mark.parametrize("seed", ["1", "2"])
def test_the_examples_replay_in_any_order_on_any_number_of_workers(
    copy: Path, workers: str, seed: str
) -> None:
    done = replay(copy, "-q", "-n", workers, f"--randomly-seed={seed}")
    assert "8 passed" in done.stdout, done.stdout + done.stderr


def test_each_test_of_the_examples_replays_alone(copy: Path) -> None:
    listed = replay(copy, "--collect-only", "-q")
    names = [line.rpartition("::")[2] for line in listed.stdout.splitlines() if "::" in line]
    assert len(names) == 8
    for name in names:
        done = replay(copy, "-q", "-k", name)
        assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_a_changed_command_fails_that_test_alone_and_shows_both(copy: Path) -> None:
    path = copy / "examples" / "tally" / "tests" / "test_tally.py"
    text = path.read_text()
    path.write_text(text.replace('"count", "nowhere.txt"', '"count", "elsewhere.txt"'))
    try:
        done = replay(copy, "-q")
    finally:
        path.write_text(text)
    assert "1 failed, 7 passed" in done.stdout, done.stdout + done.stderr
    assert "nowhere.txt" in done.stdout
    assert "elsewhere.txt" in done.stdout
    assert "--fly-record=all" in done.stdout
