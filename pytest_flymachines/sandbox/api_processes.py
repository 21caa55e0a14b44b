"""Processes over the Machines API's exec: started detached, asked for by offset."""

from __future__ import annotations

import math
import posixpath
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from pytest_flymachines._clock import Clock
from pytest_flymachines.errors import FlyMachinesError, file_error
from pytest_flymachines.sandbox.channel import Command, ProcessUpdate, no_user
from pytest_flymachines.sandbox.runner import Answer, Runner, RunnerFailed, quote
from pytest_flymachines.sandbox.staging import INLINE_BYTES, Staged, fit
from pytest_flymachines.sandbox.text import decode_name

__all__ = ["ApiProcesses"]

# While one exec waits, Fly runs no other, not even one that kills, also when nobody waits for
# the first any more. So none waits long, and few at a time.
_LONGEST_WAIT_S = 2
_CROWDED_WAIT_S = 1
# More than any one request can hold
_MUCH_BYTES = 1024 * 1024
_LITTLE_BYTES = 2500
# The machine's tools follow them.
_UPDATE_WORDS = 7


class ApiProcesses:
    """The part of the channel that runs commands."""

    def __init__(self, runner: Runner, clock: Clock) -> None:
        self._runner = runner
        self._clock = clock

    def start(self, command: Command, *, wait_s: float, forget: bool) -> ProcessUpdate:
        """Start a command and wait up to `wait_s`, at most 2, seconds for its end."""
        key = secrets.token_hex(8)
        script, stdin = self._carried(_script(command), command.stdin)
        arguments = [
            "1" if forget else "",
            key,
            "" if command.timeout_s is None else f"{command.timeout_s:g}",
            command.user or "",
            "x".join(map(str, command.pty)) if command.pty else "",
            "1" if command.keep_stdin else "",
            located(command.cwd or b"."),
            script,
            stdin,
        ]
        try:
            mine = self._runner.turn.acquire(blocking=False)
            try:
                longest_s = _LONGEST_WAIT_S if mine else _CROWDED_WAIT_S
                answer = self._runner.call("start", _wait(wait_s, longest_s), *arguments)
            finally:
                if mine:
                    self._runner.turn.release()
            self._runner.learn_tools("".join(answer.words[_UPDATE_WORDS:]))
            return _update(answer)
        except RunnerFailed as failure:
            raise self._start_error(failure, command) from failure
        except BaseException:
            # whoever is interrupted here does not know the process's name, so nobody does
            self._runner.try_call("abort", key)
            raise

    def _carried(self, script: bytes, stdin: bytes) -> tuple[str, str]:
        """Script and stdin as arguments, sent ahead where both do not fit into one request."""
        if len(stdin) > _MUCH_BYTES:  # first, because nothing sent ahead is kept while it is idle
            ahead = fit(self._runner, [stdin], room=_LITTLE_BYTES)
            room = INLINE_BYTES - _LITTLE_BYTES
            return fit(self._runner, [script], room=room).argument, ahead.argument
        first = fit(self._runner, [script], room=INLINE_BYTES)
        if not stdin:
            return first.argument, ""
        room = INLINE_BYTES - 2 * len(first.argument.encode())
        second = fit(self._runner, [stdin], room=max(room, 100))
        return first.argument, second.argument

    def _start_error(self, failure: RunnerFailed, command: Command) -> Exception:
        if failure.word == "user":
            return no_user(command.user or "", self._runner.machine_id)
        if failure.word == "1" and command.user:
            return file_error(1, command.user, "commands run as an ordinary user here")
        if failure.word == "script":
            return FlyMachinesError(
                f"a terminal in machine {self._runner.machine_id} needs the program `script` "
                "(util-linux) in the image, or the agent (python3 in the image, --fly-agent=auto)"
            )
        return failure.error(decode_name(command.cwd or b"."))

    def poll(
        self, process: str, *, stdout: int, stderr: int, wait_s: float, forget: bool = False
    ) -> ProcessUpdate:
        """Output from the given offsets; waits up to `wait_s`, at most 2, seconds for news."""
        with self._turn(_wait(wait_s)) as allowed_s:
            update = _update(self._of(process, "poll", stdout, stderr, allowed_s, ""))
        # by a request of its own, so that an answer that was lost can be asked for again
        out, err = stdout + len(update.stdout), stderr + len(update.stderr)
        if (
            forget
            and not update.running
            and out >= update.stdout_size
            and err >= update.stderr_size
        ):
            self._runner.try_call("forget", process)
        return update

    @contextmanager
    def _turn(self, wait_s: int) -> Iterator[int]:
        """How long a request may wait in the machine: not at all, if others did all the time."""
        mine = wait_s > 0 and self._runner.turn.acquire(timeout=wait_s)
        try:
            yield wait_s if mine else 0
        finally:
            if mine:
                self._runner.turn.release()

    def write_stdin(self, process: str, data: bytes, *, eof: bool) -> None:
        """Write to the process's stdin or terminal; the machine's side waits for it to read."""
        carried = fit(self._runner, [data]) if data else Staged("t", 0, "")
        self._of(process, "write", carried.argument, "1" if eof else "")

    def signal(self, process: str, number: int, *, group: bool = True) -> None:
        """Send a signal to the process group (or to the process alone)."""
        self._of(process, "signal", number, "1" if group else "")

    def resize(self, process: str, rows: int, cols: int) -> None:
        """Set the size of the process's terminal."""
        self._of(process, "resize", rows, cols)

    def forget(self, process: str) -> None:
        """Kill the process group if it still runs, and drop its output."""
        self._of(process, "forget")

    def _of(self, process: str, verb: str, *arguments: str | int) -> Answer:
        try:
            return self._runner.call(verb, process, *arguments)
        except RunnerFailed as failure:
            if failure.word == "process":
                raise LookupError(
                    f"machine {self._runner.machine_id} has no process {process!r}"
                ) from failure
            if failure.word == "32":
                raise BrokenPipeError(32, "the process does not read any more") from failure
            raise failure.error(f"process {process}") from failure

    def _run(self, verb: str, *arguments: str | bytes | int) -> Answer:
        """Do what may take longer than a request."""
        argv = [a.encode("utf-8", "surrogateescape") for a in self._runner.argv(verb, *arguments)]
        update = self.start(Command(argv=argv), wait_s=_LONGEST_WAIT_S, forget=True)
        out, err = update.stdout, update.stderr
        while update.running or len(out) < update.stdout_size or len(err) < update.stderr_size:
            update = self.poll(
                update.id, stdout=len(out), stderr=len(err), wait_s=_LONGEST_WAIT_S, forget=True
            )
            out += update.stdout
            err += update.stderr
        return self._runner.answer(
            update.exit_code or 0, out.decode(), err.decode("utf-8", "replace")
        )


def located(path: bytes) -> bytes:
    """A path that no program takes for an option, without slashes at its end."""
    path = path.rstrip(b"/") or b"/"
    return path if path.startswith(b"/") else b"./" + path


def base_name(path: bytes) -> str:
    """The last part of a path."""
    return decode_name(posixpath.basename(path.rstrip(b"/")) or b"/")


def _script(command: Command) -> bytes:
    """Shell text that becomes the command."""
    argv = list(command.argv)
    if command.env:
        pairs = [f"{k}={v}".encode("utf-8", "surrogateescape") for k, v in command.env.items()]
        if argv[0].startswith(b"-") or b"=" in argv[0]:  # env would take it for its own
            argv = [b"/bin/sh", b"-c", b'exec "$@"', b"sh", *argv]
        argv = [b"env", b"--", *pairs, *argv]
    words = b" ".join(quote(word) for word in argv)
    # dash exports OLDPWD
    return b"cd -- " + quote(located(command.cwd or b".")) + b" && unset OLDPWD && _fly " + words


def _wait(wait_s: float, longest_s: int = _LONGEST_WAIT_S) -> int:
    return min(math.ceil(wait_s), longest_s)


def _update(answer: Answer) -> ProcessUpdate:
    name, pid, code, out, err, hundredths, flags = answer.words[:_UPDATE_WORDS]
    running = code == "-"
    return ProcessUpdate(
        id=name,
        pid=int(pid),
        running=running,
        exit_code=None if running else int(code),
        timed_out="t" in flags,
        stdout=answer.blocks[0],
        stderr=answer.blocks[1],
        stdout_size=int(out),
        stderr_size=int(err),
        duration_s=int(hundredths) / 100,
        stdout_truncated="o" in flags,
        stderr_truncated="e" in flags,
    )
