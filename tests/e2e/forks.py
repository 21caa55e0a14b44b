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

from .cloud import Ended, Project, until

_MAIN = """
import ctypes, importlib, json, os, signal, sys
import pytest

for name in sys.argv[1:]:
    importlib.import_module(name)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
for line in sys.stdin:
    args, directory, environment, into = json.loads(line)
    if os.fork():
        continue
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: when this process ends
    print(os.getpid(), flush=True)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    output = os.open(into, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    for number, to in enumerate((os.open(os.devnull, os.O_RDONLY), output, output)):
        os.dup2(to, number)
    try:
        code = int(pytest.main(args))
        open(into + ".code", "w").write(str(code))
    finally:
        sys.stdout.flush()
        os._exit(0)
"""


#: What a run on machines imports.
LIVE = (
    *("xdist.dsession", "xdist.workermanage", "pytest_flymachines.controller"),
    *("pytest_flymachines.run", "pytest_flymachines.session"),
)


class Forks:
    """Starts runs, each in a session and process group of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lock = Lock()

    def start(
        self, args: Sequence[str], directory: Path, env: Mapping[str, str], output: str = "output"
    ) -> int:
        """The process id of a run with these arguments; it writes to the file `output` there."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            told = json.dumps([args, str(directory), dict(env), output])
            print(told, file=self._process.stdin, flush=True)
            return int(self._process.stdout.readline())

    def run(self, project: Project, *args: str, env: Mapping[str, str]) -> Ended:
        """Start one and wait for its end; nobody may kill it."""
        arguments, environment = project.arguments(*args), project.environment(env)
        return self.end(arguments, project.path, environment, project.path / "output")

    def end(
        self, args: Sequence[str], directory: Path, env: Mapping[str, str], output: Path
    ) -> Ended:
        """Start a run in a directory and wait for its end; it writes to the file `output`."""
        group = self.start(args, directory, env, str(output))
        if not until(lambda: not alive(group), 120, every_s=0.03):
            os.killpg(group, signal.SIGKILL)
            raise AssertionError(f"still running:\n{output.read_text()}")
        return Ended(int(Path(f"{output}.code").read_text()), output.read_text())


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
