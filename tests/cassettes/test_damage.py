"""Whatever ends a recording, every cassette is the old or the new one, whole."""

from __future__ import annotations

import os
import random
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cassettes.machine import Server
from tests.cassettes.project import Project

ROOT = Path(__file__).parents[2]


def test_fifty_kills_at_random_moments_leave_whole_cassettes(tmp_path: Path) -> None:
    seed = random.randrange(1000)
    script = Path(__file__).with_name("crash.py")
    done = subprocess.run(
        [sys.executable, script, tmp_path, "50", str(seed)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"seed {seed}: {done.stderr}"
    assert "in 6 files" in done.stdout
    assert int(done.stdout.split()[0]) > 1, "some killed run had written something"


def test_killed_workers_leave_what_was_finished(project: Project, machine: Server) -> None:
    (project.path / "test_a.py").write_text(
        "import os, pytest, signal\n"
        "@pytest.mark.parametrize('n', range(12))\n"
        "def test_x(box, n):\n"
        "    box.exec(f'echo {n}')\n"
        "    if n == 7:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    result = project.record("-n", "2", "--max-worker-restart", "1")
    outcomes = result.parseoutcomes()
    assert outcomes["failed"] == 1
    assert len([n for n in project.cassettes() if n.startswith("test_a.py/")]) == 11
    replayed = project.replay("-k", "not 7")
    replayed.assert_outcomes(passed=11, deselected=1)


def test_an_interrupt_leaves_the_test_that_ran_unwritten(project: Project) -> None:
    (project.path / "test_a.py").write_text(
        "def test_one(box):\n"
        "    box.exec('echo one')\n"
        "def test_two(box):\n"
        "    box.exec('echo two')\n"
        "    raise KeyboardInterrupt\n"
    )
    result = project.record()
    assert result.ret == pytest.ExitCode.INTERRUPTED
    names = {name for name in project.cassettes() if not name.startswith("sandboxes/")}
    assert names == {"test_a.py/test_one.yaml"}
    project.replay("-k", "one").assert_outcomes(passed=1, deselected=1)


def test_a_full_disk_fails_the_test_and_leaves_the_old_cassette(
    project: Project, tmp_path: Path
) -> None:
    """The directory is a file system of its own, of 200 KiB."""
    (project.path / "test_a.py").write_text(
        "import os, pathlib\n"
        "def test_one(box):\n"
        "    box.exec('echo $COUNT')\n"
        "def test_fills(box):\n"
        "    if os.environ.get('FILL'):\n"
        "        file = open('cassettes/fill', 'wb', buffering=0)\n"
        "        try:\n"
        "            while True:\n"
        "                file.write(bytes(4096))\n"
        "        except OSError:\n"
        "            file.close()\n"
        "def test_two(box):\n"
        "    box.exec('echo $COUNT')\n"
    )
    script = tmp_path / "run"
    script.write_text(
        "#!/bin/sh\n"
        "set -e\n"
        f"cd {shlex.quote(str(project.path))}\n"
        "mkdir -p cassettes\n"
        "mount -t tmpfs -o size=200k tmpfs cassettes\n"
        '"$@"\n'
        "cp cassettes/test_a.py/test_two.yaml before.yaml\n"
        "status=0\n"
        'FILL=1 "$@" || status=$?\n'
        "ls -a cassettes/test_a.py >after.txt\n"
        "cp cassettes/test_a.py/test_two.yaml after.yaml\n"
        "exit $status\n"
    )
    result = project.record(prefix=["unshare", "-rm", "sh", str(script)])
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    last = result.stdout.str().rpartition("test session starts")[2]
    assert "3 passed, 1 error" in last
    assert "test_two.yaml was not written and is as it was before" in last
    assert "No space left on device" in last
    before, after = (project.path / name for name in ("before.yaml", "after.yaml"))
    assert after.read_bytes() == before.read_bytes()
    assert ".tmp" not in (project.path / "after.txt").read_text()


def test_two_runs_at_once_do_not_mix_their_cassettes(project: Project) -> None:
    (project.path / "test_a.py").write_text(
        "import os\n"
        "def test_x(box):\n"
        "    for _ in range(30):\n"
        "        box.exec('echo run-' + os.environ['RUN'])\n"
    )
    processes = [project.start_recording(RUN=str(n)) for n in range(2)]
    deadline = time.monotonic() + 60
    for process in processes:
        assert process.wait(deadline - time.monotonic()) == 0
    text = project.cassette("test_a.py/test_x.yaml").read_text()
    assert ("run-0" in text) != ("run-1" in text)
    run = "0" if "run-0" in text else "1"
    project.replay(RUN=run).assert_outcomes(passed=1)


def test_what_lies_in_the_way_of_a_cassette_is_told_and_left_alone(project: Project) -> None:
    (project.path / "test_a.py").write_text("def test_one(box):\n    box.exec('echo 1')\n")
    (project.path / "cassettes").mkdir()
    project.cassette("test_a.py").write_text("a file of the user's")
    result = project.record("test_a.py")
    result.assert_outcomes(passed=1, errors=1)
    assert "test_a.py/test_one.yaml was not written" in result.stdout.str()
    assert project.cassette("test_a.py").read_text() == "a file of the user's"


def test_once_keeps_no_cassette_that_cannot_be_replayed(project: Project) -> None:
    (project.path / "test_a.py").write_text(
        "import pytest\n"
        "@pytest.fixture(scope='module')\n"
        "def wide(box):\n    return box.exec('echo wide')\n"
        "def test_one(box):\n    box.exec('echo 1')\n"
        "def test_two(box):\n    box.exec('echo 2')\n"
        "def test_three(wide):\n    pass\n"
    )
    project.record().assert_outcomes(passed=3)
    two = project.cassette("test_a.py/test_two.yaml")
    wide = project.cassette("module/test_a.py/wide@here.yaml")
    for path in (two, wide):
        path.write_text(path.read_text().replace("- request:", "<<<<<<< HEAD\n- request:", 1))
    before = {name: project.cassette(name).read_bytes() for name in project.cassettes()}
    result = project.record(mode="once")
    result.assert_outcomes(passed=3, errors=2)
    text = result.stdout.str()
    for path in (two, wide):
        assert f"{path} is not a cassette that can be read" in text
        assert f"delete {path}, or record with: pytest" in text
    assert {name: project.cassette(name).read_bytes() for name in project.cassettes()} == before
    two.unlink()
    wide.unlink()
    project.record(mode="once").assert_outcomes(passed=3)
