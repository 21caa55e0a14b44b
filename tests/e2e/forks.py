"""Many runs of pytest for the price of a few: forked from one process that has imported it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

from .cloud import Ended, Project, until

_MAIN = """
import ctypes, gc, importlib, json, os, signal, sys
import pytest

def run(program, args):
    if program == "pytest":
        return int(pytest.main(args))
    sys.argv = [program, *args]
    try:
        importlib.import_module("pytest_flymachines.cli").main()
    except SystemExit as ended:
        return ended.code or 0

def reap(*_):
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass

for name in sys.argv[1:]:
    importlib.import_module(name)
gc.freeze()
signal.signal(signal.SIGCHLD, reap)
for line in sys.stdin:
    program, args, directory, environment, into, errors = json.loads(line)
    if os.fork():
        continue
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: when this process ends
    print(os.getpid(), flush=True)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    new = os.O_CREAT | os.O_WRONLY | os.O_TRUNC
    files = [os.open(os.devnull, os.O_RDONLY), os.open(into, new, 0o600)]
    files.append(files[1] if errors == into else os.open(errors, new, 0o600))
    for number, to in enumerate(files):
        os.dup2(to, number)
    for to in set(files):
        os.close(to)
    code = run(program, args)
    sys.stdout.flush()
    open(into + ".code", "w").write(str(code))
    sys.exit()
"""


#: What a run on machines imports.
LIVE = (
    *("xdist.dsession", "xdist.workermanage", "pytest_flymachines.controller"),
    *("pytest_flymachines.run", "pytest_flymachines.session"),
)
#: What a run in local mode, a recording and the console script import beside that.
LOCAL = (
    *("pytest_flymachines.emulator.launch", "pytest_flymachines.cassettes.pytest_glue"),
    *("pytest_flymachines.cli", "pytest_flymachines.cassettes.cli"),
)


class Forks:
    """Starts runs, each in a session and process group of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lock = Lock()

    def start(
        self,
        args: Sequence[str],
        directory: Path,
        env: Mapping[str, str],
        output: str = "output",
        errors: str | None = None,
        program: str = "pytest",
    ) -> int:
        """The process id of a run with these arguments.

        It writes to the file `output` in its directory, or what is said on stderr to `errors`.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            told = [program, [*map(str, args)], str(directory), dict(env), output, errors or output]
            print(json.dumps(told), file=self._process.stdin, flush=True)
            return int(self._process.stdout.readline())

    def run(
        self, project: Project, *args: str, env: Mapping[str, str] | None = None, **how: Any
    ) -> Ended:
        """As `Project.run`; nobody may kill it."""
        arguments, environment = project.arguments(*args, **how), project.environment(env)
        return self.end(arguments, project.path, environment, project.path / "output")

    def end(
        self, args: Sequence[str], directory: Path, env: Mapping[str, str], output: Path
    ) -> Ended:
        """Start a run in a directory and wait for its end; it writes to the file `output`."""
        group = self.start(args, directory, env, str(output))
        self._wait(group, output)
        return Ended(int(Path(f"{output}.code").read_text()), output.read_text())

    def completed(
        self,
        args: Sequence[str],
        directory: Path,
        env: Mapping[str, str],
        output: Path,
        program: str = "pytest",
    ) -> subprocess.CompletedProcess[str]:
        """The same, with what was said on stderr apart.

        Args:
            args: Of pytest or of the console script.
            directory: Where to run.
            env: The whole environment.
            output: File for what it says.
            program: pytest or pytest-flymachines.
        """
        errors = Path(f"{output}.err")
        group = self.start(args, directory, env, str(output), str(errors), program)
        self._wait(group, output)
        code = int(Path(f"{output}.code").read_text())
        return subprocess.CompletedProcess(
            [program, *args], code, output.read_text(), errors.read_text()
        )

    @staticmethod
    def _wait(group: int, output: Path) -> None:
        if not until(lambda: not alive(group), 240, every_s=0.02):
            os.killpg(group, signal.SIGKILL)
            raise AssertionError(f"still running:\n{output.read_text()}")


@contextmanager
def forks(modules: Sequence[str] = LIVE, prefix: Sequence[str] = ()) -> Iterator[Forks]:
    """A process to fork from.

    Args:
        modules: What it imports beside pytest.
        prefix: A command that starts it.
    """
    pipe = subprocess.PIPE
    command = [*prefix, sys.executable, "-c", _MAIN, *modules]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        yield Forks(process)


def alive(group: int) -> bool:
    """Whether a process of this group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
