"""Signals that end a run take its machines down, whomever they reach: in time, or it is said."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from .cloud import DIES_WITH_US, Cloud, Project, cloud, end, until

LONG = """
import pathlib

def test_it(fly_sandbox):
    pathlib.Path("ready").touch()
    fly_sandbox.exec("sleep 60", timeout=120)
"""
DESTROY = "method=DELETE,path=*/machines/*"
# CI systems leave 10 s between SIGTERM and SIGKILL; that is a limit of theirs
CI_S = 10
WORKERS = pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "workers"])


@pytest.fixture(scope="module")
def running() -> Iterator[Cloud]:
    with cloud() as found:
        yield found


@pytest.fixture
def fly(running: Cloud) -> Iterator[Cloud]:
    """Without faults; afterwards there is nothing of ours."""
    yield running
    running.clear_faults()
    assert running.machines() == []


class Terminal:
    """A run in the foreground of a terminal of its own."""

    def __init__(self, project: Project, fly: Cloud, *args: str) -> None:
        self.output = ""
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [*DIES_WITH_US, *project.command(*args)],
            cwd=project.path,
            env=project.environment(fly.environment),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            # of its new session this terminal becomes the controlling one
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(theirs)

    def press_ctrl_c(self) -> None:
        """The terminal sends SIGINT to every process of its foreground."""
        os.write(self._ours, b"\x03")

    def close(self) -> None:
        """The terminal sends SIGHUP to them."""
        os.close(self._ours)

    def until(self, condition: Callable[[], object], seconds: float = 60) -> None:
        """Read what is written, which would stand still else, until the condition is true."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.output
            if select.select([self._ours], [], [], 0.1)[0]:
                with suppress(OSError):  # nobody has it open any more
                    self.output += os.read(self._ours, 65536).decode(errors="replace")

    def end(self) -> int:
        self.until(lambda: self.process.poll() is not None)
        self.close()
        return self.process.returncode


@WORKERS
def test_ctrl_c_takes_down(fly: Cloud, tmp_path: Path, workers: list[str]) -> None:
    project = Project(tmp_path, LONG)
    terminal = Terminal(project, fly, *workers)
    terminal.until((project.path / "ready").exists)
    terminal.press_ctrl_c()
    terminal.until(lambda: not fly.machines(), CI_S)
    assert terminal.end() == pytest.ExitCode.INTERRUPTED
    assert "destroying 1 machine(s)" in terminal.output
    assert "Traceback" not in terminal.output


@WORKERS
def test_a_second_ctrl_c_leaves_it_to_the_deadline(
    fly: Cloud, tmp_path: Path, workers: list[str]
) -> None:
    project = Project(tmp_path, LONG)
    fly.fault(f"delay=60,{DESTROY}")
    terminal = Terminal(project, fly, "--fly-ttl=10", *workers)
    terminal.until((project.path / "ready").exists)
    terminal.press_ctrl_c()
    terminal.until(lambda: fly.hits() == [1])
    terminal.press_ctrl_c()
    terminal.end()
    assert "what is left ends itself within 10 s" in terminal.output
    assert "pytest-flymachines reap --run" in terminal.output
    assert until(lambda: not fly.machines(), 40)


@WORKERS
def test_ctrl_c_in_the_middle_of_a_launch_takes_down(
    fly: Cloud, tmp_path: Path, workers: list[str]
) -> None:
    """Nobody knows yet that the machine is there: the answer to its create is on its way."""
    fly.fault("delay=30,when=after,method=POST,path=*/machines")
    terminal = Terminal(Project(tmp_path, LONG), fly, *workers)
    terminal.until(lambda: fly.hits() == [1])
    terminal.press_ctrl_c()
    terminal.until(lambda: not fly.machines(), CI_S)
    assert terminal.end() == pytest.ExitCode.INTERRUPTED


@WORKERS
def test_a_terminal_that_is_closed_takes_down(
    fly: Cloud, tmp_path: Path, workers: list[str]
) -> None:
    project = Project(tmp_path, LONG)
    terminal = Terminal(project, fly, *workers)
    terminal.until((project.path / "ready").exists)
    terminal.close()
    assert until(lambda: not fly.machines(), CI_S)
    assert terminal.process.wait(60) != 0


@pytest.mark.parametrize("whom", ["pytest", "group"])
@WORKERS
def test_sigterm_takes_down_before_ci_kills(
    fly: Cloud, tmp_path: Path, workers: list[str], whom: str
) -> None:
    """A CI system tells pytest alone, or everything that it has started."""
    project = Project(tmp_path, LONG)
    process = project.start(*workers, env=fly.environment)
    assert until((project.path / "ready").exists, 60)
    if whom == "group":
        os.killpg(process.pid, signal.SIGTERM)
    else:
        process.send_signal(signal.SIGTERM)
    assert until(lambda: not fly.machines(), CI_S)
    ended = end(process)
    assert ended.code == 128 + signal.SIGTERM, ended.output
    ended.has("received SIGTERM")
