"""`pytest-flymachines shell`: this terminal, on a program in a sandbox."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import sys
import tempfile
import termios
import tty
from collections.abc import Iterator
from pathlib import Path

from pytest_flymachines.backend import build
from pytest_flymachines.cassettes import Recorder
from pytest_flymachines.controller import Controller
from pytest_flymachines.errors import FlyMachinesError
from pytest_flymachines.progress import silent
from pytest_flymachines.run import Run
from pytest_flymachines.sandbox import Sandbox
from pytest_flymachines.sandbox.channel import Channel, Command, ProcessUpdate
from pytest_flymachines.settings import Settings

__all__ = ["attach_terminal", "open_sandbox"]

_POLL_S = 0.05


@contextlib.contextmanager
def open_sandbox(settings: Settings) -> Iterator[Sandbox]:
    """A sandbox outside of any test run, taken down at the end.

    Raises:
        FlyMachinesError: It did not come up.
    """
    with tempfile.TemporaryDirectory(prefix="pytest-flymachines-") as scratch:
        controller = Controller(settings, Path(scratch) / "run")
        try:
            recorder = Recorder(Path(scratch) / "none", mode="off")
            backend = build(settings, controller.info, recorder)
            run = Run(settings, controller.info, "main", backend, recorder)
            try:
                yield run.sandbox(settings.spec())
            finally:
                run.close()
        finally:
            outcome = controller.finish(failed=False, progress=silent)
            for line in (*outcome.kept, *outcome.left):
                print(line, file=sys.stderr)  # noqa: T201 - a program


def attach_terminal(sandbox: Sandbox, command: str) -> int:
    """Run a program on a terminal in the sandbox, with this process's terminal; its exit code.

    Raises:
        FlyMachinesError: stdin is no terminal, or the machine went away.
    """
    if not sys.stdin.isatty():
        raise FlyMachinesError("stdin is not a terminal; use `Sandbox.exec` for commands")
    channel = sandbox.attachment.channel
    size = shutil.get_terminal_size()
    start = Command(
        argv=[b"/bin/sh", b"-c", os.fsencode(command)],
        env={"TERM": os.environ.get("TERM", "xterm-256color")},
        keep_stdin=True,
        pty=(size.lines, size.columns),
    )
    update = channel.start(start, wait_s=_POLL_S, forget=False)
    try:
        with _raw(channel, update.id):
            return _pump(channel, update)
    finally:
        channel.forget(update.id)


@contextlib.contextmanager
def _raw(channel: Channel, process: str) -> Iterator[None]:
    """Every key goes to the machine, and the size of the window too."""

    def resized(*_: object) -> None:
        size = shutil.get_terminal_size()
        channel.resize(process, size.lines, size.columns)

    saved = termios.tcgetattr(sys.stdin)
    before = signal.signal(signal.SIGWINCH, resized)
    try:
        tty.setraw(sys.stdin, termios.TCSADRAIN)  # what was typed ahead is kept
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, saved)
        signal.signal(signal.SIGWINCH, before)


def _pump(channel: Channel, update: ProcessUpdate) -> int:
    shown = 0
    while True:
        sys.stdout.buffer.write(update.stdout)
        sys.stdout.buffer.flush()
        shown += len(update.stdout)
        if not update.running and shown >= update.stdout_size:
            return update.exit_code or 0
        if select.select([sys.stdin], [], [], 0)[0]:
            with contextlib.suppress(BrokenPipeError):
                channel.write_stdin(update.id, os.read(sys.stdin.fileno(), 65536), eof=False)
        update = channel.poll(update.id, stdout=shown, stderr=0, wait_s=_POLL_S)
