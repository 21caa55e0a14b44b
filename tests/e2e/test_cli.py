"""The console script, as typed."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .cloud import APP, Cloud, Project
from .forks import Forks

SCRIPT = [sys.executable, "-c", "from pytest_flymachines.cli import main; main()"]


Call = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def call(runs: Forks, tmp_path: Path) -> Call:
    """`call(*args, **env)`: the script without a terminal, its standard streams apart."""
    program = "pytest-flymachines"
    return lambda *args, **env: runs.completed(
        args, tmp_path, os.environ | env, tmp_path / "output", program
    )


class Typed:
    """A command on a terminal of its own."""

    def __init__(self, *args: str, cwd: Path) -> None:
        self.output = ""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(cwd)
            os.execv(sys.executable, [*SCRIPT, *args])

    def expect(self, pattern: str, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while not re.search(pattern, self.output):
            assert time.monotonic() < deadline, self.output
            if select.select([self.fd], [], [], 0.2)[0]:
                try:
                    self.output += os.read(self.fd, 65536).decode(errors="replace")
                except OSError:
                    break
        assert re.search(pattern, self.output), self.output

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def wait(self) -> int:
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.fd)
        return code


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_shell_is_a_terminal_in_a_sandbox(tmp_path: Path) -> None:
    shell = Typed("shell", "--fly-mode=local", "--command", "exec /bin/sh", cwd=tmp_path)
    shell.expect(r"machine \w{14}, /workspace; exit ends it")
    shell.expect("# $")
    shell.type("echo $((6 * 7)) && hostname; tty\r")
    shell.expect(r"\b42\b")
    shell.expect(r"/dev/pts/\d")
    shell.type("exit 5\r")
    assert shell.wait() == 5


def test_shell_refuses_what_it_does_not_know(call: Call) -> None:
    done = call("shell", "--fly-colour=red")
    assert done.returncode == 1
    assert "'--fly-colour=red': expected" in done.stderr


def test_shell_without_a_terminal_says_so(call: Call) -> None:
    done = call("shell", "--fly-mode=local")
    assert done.returncode == 1
    assert "stdin is not a terminal" in done.stderr


def test_doctor_says_what_works_and_what_to_do(call: Call) -> None:
    done = call("doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "git: /" in done.stdout
    assert "engine process: " in done.stdout
    assert "fly tokens create deploy -a cook-sandbox" in done.stdout


def test_doctor_with_a_token_points_at_the_probe(call: Call) -> None:
    done = call("doctor", "--api-url=http://127.0.0.1:9", FLY_API_TOKEN="emu-none")
    assert done.returncode == 1
    assert "pytest-flymachines probe --app=cook-sandbox" in done.stdout


def test_doctor_looks_at_each_app_that_is_named(call: Call, fly: Cloud) -> None:
    there = {"FLY_API_TOKEN": fly.emulator.token, "FLY_FLAPS_BASE_URL": fly.emulator.api_url}
    done = call("doctor", "-a", APP, "-a", "not-there", **there)
    assert done.returncode == 1
    assert f"ok   app {APP} at {fly.emulator.api_url}: " in done.stdout
    assert f"BAD  app not-there at {fly.emulator.api_url}: does not exist" in done.stdout


def test_list_without_a_token_says_where_it_comes_from(call: Call) -> None:
    done = call("list")
    assert done.returncode == 2
    assert "set FLY_API_TOKEN" in done.stderr


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_what_a_run_left_is_listed_and_destroyed_when_agreed(
    fly: Cloud, runs: Forks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a terminal of 80 columns, after a run that kept its machine and volume."""
    tests = "def test_it(fly_sandbox): fly_sandbox.exec('true')"
    args = ["--fly-keep=always", "--fly-volume-gb=1", "--fly-run-id=0123456789abcdef"]
    runs.run(Project(tmp_path / "project", tests), *args, env=fly.environment).has("1 passed")
    (machine,), (volume,) = fly.machines(), fly.volumes()
    for name, value in fly.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COLUMNS", "80")

    listed = Typed("list", cwd=tmp_path)
    listed.expect(rf"{machine.id}.*0123456789abcdef")
    listed.expect(rf"volume {volume.id} in cook-sandbox: 1 GB, held by {machine.id}")
    assert listed.wait() == 0

    def reap(answer: str) -> Typed:
        typed = Typed("reap", "--run=0123456789abcdef", cwd=tmp_path)
        typed.expect(rf"machine {machine.id} \(started\) in cook-sandbox, run 0123456789abcdef of ")
        typed.expect(rf"volume {volume.id} \(1 GB\)")
        typed.expect(r"destroy 2 of them\? \[y/N\]: ")
        typed.type(answer)
        return typed

    refused = reap("\r")
    refused.expect("Aborted!")
    assert refused.wait() == 1
    assert [one.id for one in fly.machines()] == [machine.id]
    agreed = reap("y\r")
    agreed.expect("destroyed 2, left 0")
    assert agreed.wait() == 0
    assert (fly.machines(), fly.volumes()) == ([], [])


def test_reap_refuses_choices_that_contradict_each_other(call: Call) -> None:
    done = call("reap", "--run=one", "--all-mine", FLY_API_TOKEN="emu-none")
    assert done.returncode == 2
    assert "leave out --older-than and --all-mine" in done.stderr
    assert call("reap", "--older-than=-1", FLY_API_TOKEN="emu-none").returncode == 2


def test_help_names_every_command(call: Call) -> None:
    commands = ["cassettes", "doctor", "emulator", "list", "probe", "reap", "shell"]
    overview = call("--help").stdout
    assert "..." not in (overview + call("cassettes", "--help").stdout).replace("[ARGS]...", "")
    assert all(name in overview for name in commands)
    assert "--rate-limits" in call("emulator", "--help").stdout
    assert "verify" in call("cassettes", "--help").stdout
    assert "less than a cent" in call("probe", "--help").stdout
