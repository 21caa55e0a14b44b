"""Runs of the installed plugin, in processes of their own, with a clean environment."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .cloud import DIES_WITH_US, Cloud, cloud, until
from .forks import LIVE, LOCAL, Forks, forks
from .leftovers import descending, emulators

Run = Callable[..., pytest.RunResult]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("FLY_", "PYTEST_", "COOK_")):
            monkeypatch.delenv(name)


@pytest.fixture
def fly() -> Iterator[Cloud]:
    """A stand-alone emulator for one test, which leaves nothing of ours in it."""
    with cloud() as found:
        yield found
        assert found.machines() == []


@pytest.fixture
def scratch(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory for temporary files of its own, so that leftovers can be seen."""
    path = tmp_path_factory.mktemp("scratch")
    monkeypatch.setenv("TMPDIR", str(path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return path


@pytest.fixture
def nothing_is_left(scratch: Path) -> Iterator[None]:
    """By a test: neither a process that it started nor a directory of theirs."""
    with descending() as processes:
        yield
        gone = until(lambda: not processes() and not emulators(scratch))
        assert gone, (processes(), emulators(scratch))


def plain(args: tuple[str, ...]) -> list[str]:
    """Options of a run with our plugin, and with pytest-xdist if the arguments are for it.

    Every plugin beside them that is installed here would cost each run some of its start.
    """
    workers = ["xdist"] if any(arg.startswith("-n") for arg in args) else []
    return [f"-p{name}" for name in ("flymachines", *workers, "no:cacheprovider")]


@pytest.fixture(scope="session")
def runs() -> Iterator[Forks]:
    """Runs that need not import pytest again, for there are many."""
    with forks((*LIVE, *LOCAL)) as found:
        yield found


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, runs: Forks) -> Run:
    """`run(*args)`: pytest in a process of its own, in local mode unless the arguments say else.

    It has the plugins of `plain`; with `others=True` all that are installed, and both this and
    `new=True` give it a new interpreter, as users have it.
    """
    numbers = itertools.count()

    def start(
        *args: str, mode: str = "local", others: bool = False, new: bool = False
    ) -> pytest.RunResult:
        chosen = [f"--fly-mode={mode}"] if mode else []
        if others or new:
            named = ["-pno:randomly"] if others else plain(args)
            with monkeypatch.context() as patch:
                if not others:
                    patch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
                return pytester.runpytest_subprocess(*named, "-ra", *chosen, *args, timeout=240)
        number = next(numbers)
        base = f"--basetemp={pytester.path / f'run-{number}'}"
        output = pytester.path / f"output-{number}"
        env = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        options = [base, *plain(args), "-ra", *chosen, *args]
        began = time.monotonic()
        done = runs.completed(options, Path.cwd(), env, output)
        print(done.stdout, done.stderr, sep="\n")
        took_s = time.monotonic() - began
        lines = done.stdout.splitlines(), done.stderr.splitlines()
        return pytest.RunResult(done.returncode, *lines, took_s)

    return start


@pytest.fixture
def repository(pytester: pytest.Pytester) -> Path:
    """A small git repository in a directory of its own."""
    path = pytester.path / "project"
    path.mkdir()
    (path / "hello.txt").write_text("hello\n")
    git(path, "init", "-q", "-b", "main")
    commit(path, "first")
    return path


def git(path: Path, *args: str) -> str:
    identity = ["-c", "user.name=T", "-c", "user.email=t@example.com"]
    done = subprocess.run(
        ["git", *identity, *args], cwd=path, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def commit(path: Path, message: str) -> None:
    git(path, "add", "-A")
    git(path, "commit", "-qm", message)


@pytest.fixture
def background(pytester: pytest.Pytester) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`background(*args)`: pytest as a process group that a test may kill."""
    started: list[subprocess.Popen[str]] = []

    def start(*args: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*DIES_WITH_US, sys.executable, "-m", "pytest", *plain(args), *args],
            cwd=pytester.path,
            env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
