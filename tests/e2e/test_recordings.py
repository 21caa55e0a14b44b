"""Recordings of live runs, of machines that were there before, and what `verify` says of both.

A stand-alone emulator with rate limits stands for Fly: the run knows it by a token and a URL.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_flymachines.cassettes.catalog import Catalog, Entry
from pytest_flymachines.cassettes.verify import differences

from . import kills
from .cloud import Cloud, Ended, Project, cloud
from .forks import Forks

SUITE = """
import pytest

@pytest.fixture(scope="session")
def built(fly_sandbox):
    fly_sandbox.exec("echo built >built")
    return "built"

@pytest.fixture(scope="session")
def server(fly_sandbox):
    with fly_sandbox.popen("while read line; do echo got $line; done") as process:
        yield process

def test_exec(fly_sandbox, built):
    assert fly_sandbox.exec(["cat", built]).stdout == "built\\n"

@pytest.mark.parametrize("n", [1, 2])
def test_server(server, n):
    server.stdin.write(f"{n}\\n")
    server.wait_for_log(f"got {n}")

def test_file(fly_workspace):
    fly_workspace.write_file("a", "1")
    assert fly_workspace.read_text("a") == "1"

def test_status(fly_sandbox, fly_client):
    assert fly_sandbox.status().state == "running"
    assert fly_client.get_machine(fly_sandbox.app, fly_sandbox.machine_id).state == "started"

def test_terminal(fly_sandbox):
    with fly_sandbox.terminal("read line; stty -a | grep -o 'rows [0-9]*'") as terminal:
        terminal.send_line()
        terminal.expect("rows 24")
        terminal.wait()
"""
COUNT = 6
NOT_OURS = """
import pytest
from pytest_flymachines.errors import SettingsError

def test_it_is_not_ours(fly_sandbox):
    with pytest.raises(SettingsError):
        fly_sandbox.destroy()

def test_a_fresh_one_is(fly_sandbox_factory, fly_sandbox):
    fresh = fly_sandbox_factory(fresh=True)
    assert fresh.machine_id != fly_sandbox.machine_id
    assert fresh.exec("echo mine").stdout == "mine\\n"
    fresh.destroy()
"""
STRICT = ("--fly-missing-cassette=fail", "--fly-unused=fail")


@pytest.fixture(scope="module")
def live() -> Iterator[Cloud]:
    with cloud("--rate-limits", "on", engine="bubblewrap") as found:
        yield found


def passed(done: Ended, count: int = COUNT) -> None:
    done.has(f"{count} passed")
    assert done.code == 0, done.output


def replayed(runs: Forks, project: Project, *args: str) -> Ended:
    return runs.run(project, *STRICT, *args, mode="replay")


def cli(runs: Forks, project: Project, *args: str) -> subprocess.CompletedProcess[str]:
    """The console script, in the project's directory."""
    env = {**os.environ, "PYTEST_ADDOPTS": "-p no:randomly -p no:cacheprovider"}
    output = project.path / "output"
    program = "pytest-flymachines"
    return runs.completed(["cassettes", *args], project.path, env, output, program)


def entries(directory: Path) -> dict[str, Entry]:
    catalog = Catalog(directory)
    return {str(path.relative_to(directory)): catalog.read(path) for path in catalog.paths()}


def test_a_live_recording_replays_and_says_the_same_as_a_local_one(
    runs: Forks, tmp_path: Path, live: Cloud
) -> None:
    project = Project(tmp_path / "project", SUITE)
    passed(runs.run(project, "--fly-record=all", env=live.environment))
    asked = len(live.requests())
    passed(replayed(runs, project))
    assert len(live.requests()) == asked
    passed(runs.run(project, "--fly-record=all", "--fly-cassettes=local", mode="local"))
    ours, theirs = (entries(project.path / name) for name in ("local", "cassettes"))
    assert ours.keys() == theirs.keys()
    assert len(ours) == COUNT + 3
    for name, entry in ours.items():
        # an app is made where there is none, and on Fly there must be one
        told = [line for line in differences(entry, theirs[name]) if "/v1/apps" in line]
        assert told == [], name
        assert (entry.header["mode"], theirs[name].header["mode"]) == ("local", "live")
        differing = {k for k in entry.header if entry.header[k] != theirs[name].header.get(k)}
        assert differing <= {"mode", "date", "run", "machines"}
    passed(replayed(runs, project, "--fly-cassettes=local"))


def test_a_recording_on_a_machine_that_was_there_before_replays(
    runs: Forks, tmp_path: Path, live: Cloud
) -> None:
    before = Project(tmp_path / "before", "def test_it(fly_sandbox): pass\n")
    kept = runs.run(before, "--fly-keep=always", env=live.environment)
    (machine,) = re.findall(r"--fly-machine=(\w+)", kept.output)
    project = Project(tmp_path / "project", SUITE)
    (project.path / "test_not_ours.py").write_text(NOT_OURS)
    named = f"--fly-machine={machine}"
    passed(runs.run(project, named, "--fly-record=all", "-n", "2", env=live.environment), COUNT + 2)
    assert [m.id for m in live.machines()] == [machine]
    live.client.destroy_machine("cook-sandbox", machine, force=True)
    passed(replayed(runs, project, "--fly-machine=another"), COUNT + 2)
    passed(replayed(runs, project, "-k", "fresh"), 1)
    passed(replayed(runs, project, "-k", "test_server and 2"), 1)
    done = cli(runs, project, "check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_verify_tells_what_machines_answer_now_in_another_way(runs: Forks, tmp_path: Path) -> None:
    project = Project(tmp_path / "project", SUITE)
    passed(runs.run(project, "--fly-record=all", mode="local"))
    done = cli(runs, project, "verify", "--fly-mode=local", "-q")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{COUNT + 3} as recorded, 0 differ, 0 never recorded" in done.stdout
    path = project.path / "cassettes" / "test_it.py" / "test_exec.yaml"
    path.write_text(path.read_text().replace("built\\n", "built long ago\\n"))
    (project.path / "cassettes" / "test_it.py" / "test_file.yaml").write_text("recording: [")
    (project.path / "cassettes" / "test_it.py" / "test_status.yaml").unlink()
    before = {p: p.read_bytes() for p in project.path.rglob("*.yaml")}
    done = cli(runs, project, "verify", "--fly-mode=local", "-q", "-k", "not terminal")
    assert done.returncode == 1
    assert "test_it.py::test_exec (cassettes/test_it.py/test_exec.yaml) differs:" in done.stdout
    assert '-  "stdout": "built long ago\\n"' in done.stdout
    assert '+  "stdout": "built\\n"' in done.stdout
    assert "test_file.yaml is not a cassette that can be read" in done.stdout
    assert "5 as recorded, 2 differ, 1 never recorded" in done.stdout
    assert {p: p.read_bytes() for p in project.path.rglob("*.yaml")} == before


def test_the_examples_answer_as_they_were_recorded(runs: Forks, tmp_path: Path) -> None:
    root, tapes = Path(__file__).parents[2], tmp_path / "cassettes"
    shutil.copytree(root / "cassettes", tapes)
    env = {**os.environ, "PYTEST_ADDOPTS": "-p no:randomly -p no:cacheprovider"}
    ini = ("-c", "examples/tally/pytest.ini", "--rootdir=examples/tally")
    verify = ["verify", f"--directory={tapes}", *ini, "--fly-mode=local", "-q"]

    def verified() -> subprocess.CompletedProcess[str]:
        args = ["cassettes", *verify, "examples/tally"]
        return runs.completed(args, root, env, tmp_path / "output", "pytest-flymachines")

    # processes have other numbers in each run
    for path in tapes.rglob("*.yaml"):
        path.write_text(re.sub(r'"pid": \d+', '"pid": 987654', path.read_text()))
    done = verified()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "10 as recorded, 0 differ, 0 never recorded" in done.stdout
    path = tapes / "tests/test_tally.py/test_it_counts.yaml"
    path.write_text(path.read_text().replace('\\"words\\": 3', '\\"words\\": 4'))
    done = verified()
    assert done.returncode == 1
    assert "test_tally.py::test_it_counts (" in done.stdout
    assert "POST /v1/apps/{app}/machines/" in done.stdout
    old, new = (rf"^ *\{sign}.*poem.txt: .*words\W+{n}," for sign, n in (("-", 4), ("+", 3)))
    assert re.search(old, done.stdout, re.MULTILINE), done.stdout
    assert re.search(new, done.stdout, re.MULTILINE), done.stdout
    assert "9 as recorded, 1 differ, 0 never recorded" in done.stdout


ODD = """
import pytest

@pytest.mark.parametrize("text", ["it's $HOME `x` a/b \u00fc"])
def test_echo(fly_sandbox, text):
    assert fly_sandbox.exec(["echo", text]).stdout == text + "\\n"

def test_other(fly_sandbox):
    assert fly_sandbox.exec("echo other").ok

def test_typed(fly_sandbox):
    with fly_sandbox.popen("read line; sleep 60") as process:
        process.stdin.write("one\\n")
"""


def test_the_command_that_a_miss_names_records_again(runs: Forks, tmp_path: Path) -> None:
    project = Project(tmp_path / "project", ODD)
    spec = ("--fly-memory-mb=512", "--fly-cassettes=tapes")
    passed(runs.run(project, "--fly-record=all", *spec, mode="local"), 3)
    other = project.path / "tapes" / "test_it.py" / "test_other.yaml"
    before = other.read_bytes()
    text = (project.path / "test_it.py").read_text()
    (project.path / "test_it.py").write_text(
        text.replace('exec(["echo", text])', 'exec(["printf", "%s\\\\n", text])')
    )
    missed = replayed(runs, project, *spec)
    missed.has("1 failed, 2 passed", '-    "echo"', '+    "printf"')
    (command,) = re.findall(r"^E +If that .* again with: (pytest .*)", missed.output, re.MULTILINE)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTEST_ADDOPTS": "-p no:randomly"}
    done = subprocess.run(
        command, shell=True, cwd=project.path, env=environment, capture_output=True, text=True
    )
    assert "1 passed" in done.stdout, done.stdout
    assert other.read_bytes() == before
    passed(replayed(runs, project, *spec), 3)
    text = (project.path / "test_it.py").read_text()
    (project.path / "test_it.py").write_text(text.replace('"one\\n"', '"two\\n"'))
    missed = replayed(runs, project, *spec)
    missed.has("1 failed, 2 passed", "-one", "+two")
    # that it could not be ended either says nothing new
    assert "During handling" not in missed.output
    assert "/signal" not in missed.output


FRESH = """
def test_fresh(fly_sandbox_factory):
    fresh = fly_sandbox_factory(fresh=True)
    assert fresh.exec("git ls-files").stdout == "noise.bin\\nsecret.txt\\n"
"""


def test_a_fresh_sandbox_with_a_repository_replays_over_the_machines_api_alone(
    runs: Forks, tmp_path: Path
) -> None:
    """A replay packs no repository, though its upload takes many requests of the test's own."""
    project = Project(tmp_path / "project", FRESH)
    (project.path / "noise.bin").write_bytes(random.Random(1).randbytes(60_000))
    (project.path / "secret.txt").write_text("open sesame 4711\n")
    git = ["git", "-C", str(project.path), "-c", "user.name=a", "-c", "user.email=a@b.example"]
    for verb in (["init", "-q"], ["add", "noise.bin", "secret.txt"], ["commit", "-qm", "all"]):
        subprocess.run([*git, *verb], check=True)
    # its own files are not to be a part of it, because they change with the recording
    (project.path / ".git" / "info" / "exclude").write_text("*\n")
    options = ("--fly-agent=off", "--fly-repo=.", "--override-ini=fly_scrub=open sesame 4711")
    passed(runs.run(project, "--fly-record=all", *options, mode="local"), 1)
    # the repository is in no cassette, neither are secrets in it
    (path,) = (project.path / "cassettes" / "test_it.py").iterdir()
    assert path.stat().st_size < 60_000
    shutil.rmtree(project.path / ".git")
    passed(replayed(runs, project, *options), 1)


def test_a_project_without_configuration_says_where_cassettes_are_looked_for(
    runs: Forks, tmp_path: Path
) -> None:
    project = Project(tmp_path / "project", "def test_it(fly_sandbox): pass\n")
    (project.path / "pytest.ini").unlink()
    runs.run(project, mode="replay").has("1 skipped", f"took {project.path} for its directory")
    (project.path / "pytest.ini").write_text("[pytest]\n")
    assert "for its directory" not in runs.run(project, mode="replay").output


def test_runs_that_are_killed_while_they_record_leave_whole_cassettes() -> None:
    """As a program, `kills` takes fifty moments."""
    kills.main(2, random.randrange(1000))
