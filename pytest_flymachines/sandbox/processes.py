"""`popen`: commands that run while the test goes on."""

from __future__ import annotations

import io
import re
import signal
import threading
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from types import TracebackType
from typing import Self, get_args

from pytest_flymachines._clock import Clock
from pytest_flymachines.errors import (
    AgentUnavailable,
    ApiError,
    CassetteMiss,
    CommandTimeout,
    ExpectTimeout,
    MachineGone,
)
from pytest_flymachines.sandbox.arguments import (
    check_errors,
    check_port,
    check_seconds,
    compiled,
    whole_number,
)
from pytest_flymachines.sandbox.channel import Channel, Command, ProcessUpdate
from pytest_flymachines.sandbox.exec import WAIT_S, ExecVerbs, Output, Stream, make_command
from pytest_flymachines.sandbox.text import (
    CommandLine,
    PathArg,
    command_text,
    encode_data,
    shown_command,
)

__all__ = ["ProcessInput", "ProcessVerbs", "RemoteProcess"]

_END_S = 5.0
_TAIL_CHARS = 4000
_ENDED = 3

# Looks for a listener in the kernel's tables, because not every image has a tool that connects.
# 0A is TCP_LISTEN (https://www.kernel.org/doc/html/latest/networking/proc_net_tcp.html).
_WAIT_FOR_PORT = f"""
hex=$(printf %04X "$1") pid=$2 turns=$(($3 * 10))
while [ "$turns" -ge 0 ]; do
    while read -r _ address _ state _; do
        case $state$address in 0A*:$hex) exit 0 ;; esac
    done <<END
$(cat /proc/net/tcp /proc/net/tcp6 2>/dev/null)
END
    [ "$pid" = 0 ] || kill -0 "$pid" 2>/dev/null || exit {_ENDED}
    turns=$((turns - 1))
    sleep 0.1 2>/dev/null || {{ sleep 1; turns=$((turns - 9)); }}
done
exit 4
"""


class RemoteProcess:
    """A process in the machine. Its output is kept there, so a lost connection loses nothing.

    Attributes:
        args: The command as it was given.
        pid: Process id in the machine; 0 while it is not known yet.
        machine_id: The machine that runs it.
        stdin: Writes to the process; see `ProcessInput`.
        stdout: Its output as text, readable while it runs: `read()` to the end, `readline()`,
            iteration over lines; `stdout.buffer` has the bytes.
        stderr: The same for stderr.
    """

    def __init__(
        self,
        channel: Channel,
        clock: Clock,
        update: ProcessUpdate,
        command: CommandLine,
        machine_id: str,
        errors: str = "surrogateescape",
    ) -> None:
        self.args: str | list[str] = shown_command(command)
        self.machine_id = machine_id
        self._channel = channel
        self._clock = clock
        self._shown = command_text(command)
        self._lock = threading.Lock()
        self._output = Output()
        self._last = update
        self._complete = self._output.add(update)
        self._forgotten = False
        self.stdin: ProcessInput = ProcessInput(channel, update.id)
        self.stdout: io.TextIOWrapper = self._reader("stdout", errors)
        self.stderr: io.TextIOWrapper = self._reader("stderr", errors)

    def __repr__(self) -> str:
        code = self.returncode
        state = "running" if code is None else f"exit code {code}"
        return f"<RemoteProcess {self._shown!r} pid={self.pid} {state}>"

    @property
    def pid(self) -> int:
        """Process id in the machine."""
        return self._last.pid

    @property
    def returncode(self) -> int | None:
        """Exit code as far as it is known without asking; 128 + n when signal n ended it."""
        return self._last.exit_code

    def poll(self) -> int | None:
        """Ask whether the process has ended; its exit code, or None while it runs.

        Raises:
            MachineGone: The machine, or its agent, was started anew and does not know it.
        """
        if self.returncode is None:
            self._advance(0.0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and for all output; the exit code.

        Args:
            timeout: Seconds; None waits as long as it takes.

        Raises:
            CommandTimeout: It still runs, and goes on running.
            MachineGone: As `poll`.
        """
        if timeout is not None:
            check_seconds("timeout", timeout, none="for as long as it takes")
        deadline = None if timeout is None else self._clock.monotonic() + timeout
        while not self._complete:
            if deadline is not None and self._clock.monotonic() >= deadline:
                out, err = self._text("stdout"), self._text("stderr")
                raise CommandTimeout(self.args, timeout or 0.0, out, err, self.machine_id)
            self._advance(WAIT_S if timeout is None else min(WAIT_S, timeout))
        return self._last.exit_code or 0

    def send_signal(self, number: int) -> None:
        """Send a signal (`signal.SIGHUP`, or its number) to the process's group.

        It has no effect once the process has ended.

        Args:
            number: From `signal`.

        Raises:
            MachineGone: The machine does not run any more.
        """
        number = whole_number("number", number, "a signal, such as signal.SIGHUP", 0, 64)
        if self.returncode is None:
            self._channel.signal(self._last.id, number)

    def terminate(self) -> None:
        """Send SIGTERM to the process's group.

        Raises:
            MachineGone: The machine does not run any more.
        """
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL to the process's group.

        Raises:
            MachineGone: The machine does not run any more.
        """
        self.send_signal(signal.SIGKILL)

    def wait_for_log(self, pattern: str | re.Pattern[str], timeout: float = 30.0) -> re.Match[str]:
        """Wait until output matches; looks at all output since the start, stdout first.

        Args:
            pattern: Regular expression, searched with `re.MULTILINE` if it is a `str`.
            timeout: Seconds.

        Raises:
            ExpectTimeout: Time has passed, or the process has ended, without a match; the
                message shows the output.
        """
        regex = compiled(pattern, re.MULTILINE)
        check_seconds("timeout", timeout)
        deadline = self._clock.monotonic() + timeout
        while True:
            for stream in get_args(Stream):
                if found := regex.search(self._text(stream)):
                    return found
            if self._complete:
                raise self._unmet(f"{regex.pattern!r} in its output, and has ended")
            if self._clock.monotonic() >= deadline:
                raise self._unmet(f"{regex.pattern!r} in its output for {timeout:g} s")
            self._advance(min(WAIT_S, timeout))

    def wait_for_port(self, port: int, timeout: float = 30.0) -> None:
        """Wait until something in the machine listens on a TCP port.

        Args:
            port: On any address of the machine.
            timeout: Seconds.

        Raises:
            ExpectTimeout: Time has passed, or the process has ended, without a listener; the
                message shows the output.
        """
        check_port(port)
        check_seconds("timeout", timeout)
        if not self.pid:
            self._advance(0.0)
        argv = [b"/bin/sh", b"-c", _WAIT_FOR_PORT.encode(), b"sh"]
        argv += [str(n).encode() for n in (port, self.pid, max(1, round(timeout)))]
        probe = Command(argv=argv, cwd=b"/", timeout_s=timeout + _END_S)
        update = self._channel.start(probe, wait_s=WAIT_S, forget=True)
        while update.running:
            update = self._channel.poll(update.id, stdout=0, stderr=0, wait_s=WAIT_S, forget=True)
        if update.exit_code == 0:
            return
        if update.exit_code == _ENDED:
            self.wait()
            raise self._unmet(f"a listener on port {port}, and has ended")
        self._advance(0.0)
        raise self._unmet(f"a listener on port {port} for {timeout:g} s")

    def end(self, grace: float = _END_S) -> None:
        """End the process and drop its output from the machine; what was read stays here.

        Raises nothing where the machine or its agent is gone already.

        Args:
            grace: Seconds between SIGTERM and SIGKILL.
        """
        check_seconds("grace", grace)
        if self._forgotten:
            return
        self._forgotten = True
        with suppress(LookupError, MachineGone, AgentUnavailable, ApiError):
            if self.poll() is None:
                self.terminate()
                with suppress(CommandTimeout):
                    self.wait(grace)
            if self.returncode is None:
                self.kill()
                with suppress(CommandTimeout):
                    self.wait(grace)
            self._channel.forget(self._last.id)

    def transcript(self) -> str:
        """Command, state and the end of the output, for a report."""
        parts = [repr(self)]
        for stream in get_args(Stream):
            if text := self._text(stream).rstrip("\n"):
                cut = "[...]" if len(text) > _TAIL_CHARS else ""
                parts.append(f"--- {stream} ---\n{cut}{text[-_TAIL_CHARS:]}")
        return "\n".join(parts)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # what was not recorded has no recorded end, either
        with suppress(CassetteMiss) if isinstance(error, CassetteMiss) else nullcontext():
            self.end()

    def _reader(self, stream: Stream, errors: str) -> io.TextIOWrapper:
        raw = _RawOutput(lambda position, size: self._fetch(stream, position, size))
        return io.TextIOWrapper(io.BufferedReader(raw), "utf-8", errors, newline="")

    def _fetch(self, stream: Stream, position: int, size: int) -> bytes:
        """Output from a position, as soon as there is some; nothing at the end."""
        while True:
            complete = self._complete
            piece = bytes(self._output.stream(stream)[position : position + size])
            if piece or complete:
                return piece
            self._advance(WAIT_S)

    def _text(self, stream: Stream) -> str:
        return self._output.text(stream, "replace")

    def _unmet(self, what: str) -> ExpectTimeout:
        return ExpectTimeout(
            f"process {self._shown!r} on machine {self.machine_id} did not show {what}\n"
            f"{self.transcript()}"
        )

    def _advance(self, wait_s: float) -> None:
        """Ask once for news, waiting for them up to `wait_s`; several threads may."""
        if self._complete:
            return
        out, err = len(self._output.stdout), len(self._output.stderr)
        try:
            update = self._channel.poll(self._last.id, stdout=out, stderr=err, wait_s=wait_s)
        except LookupError as error:
            raise MachineGone(
                f"machine {self.machine_id} does not know process {self._shown!r} any more "
                f"({error}): it, or its agent, was started anew, or the process was ended"
            ) from error
        with self._lock:
            # another thread may have taken the same output meanwhile
            if (out, err) == (len(self._output.stdout), len(self._output.stderr)):
                self._last = update
                self._complete = self._output.add(update)


class ProcessInput:
    """The writing end of a process's stdin.

    Attributes:
        closed: `close` was called.
    """

    def __init__(self, channel: Channel, name: str) -> None:
        self._channel = channel
        self._name = name
        self.closed: bool = False

    def write(self, data: bytes | str) -> int:
        """Write all of `data`, text as UTF-8; how much, in bytes or characters.

        Raises:
            ValueError: `close` was called.
            BrokenPipeError: The process has ended or does not read any more.
        """
        if self.closed:
            raise ValueError("write to closed stdin")
        self._channel.write_stdin(self._name, encode_data(data), eof=False)
        return len(data)

    def flush(self) -> None:
        """Nothing to do: each write has arrived when it returns."""

    def close(self) -> None:
        """Close stdin, so that the process reads an end of file."""
        if not self.closed:
            self.closed = True
            with suppress(BrokenPipeError):
                self._channel.write_stdin(self._name, b"", eof=True)


class _RawOutput(io.RawIOBase):
    """One stream of a process, as the bytes come."""

    def __init__(self, fetch: Callable[[int, int], bytes]) -> None:
        self._fetch = fetch
        self._position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # as io calls it
        piece = self._fetch(self._position, len(buffer))
        buffer[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)


class ProcessVerbs(ExecVerbs):
    """Running commands while the test goes on."""

    def popen(
        self,
        command: CommandLine,
        *,
        cwd: PathArg | None = None,
        env: Mapping[str, str] | None = None,
        user: str | int | None = None,
        timeout: float | None = None,
        errors: str = "surrogateescape",
    ) -> RemoteProcess:
        """Start a command and let it run.

        `with sandbox.popen(...) as process:` ends it, and so does the end of the test that
        started it.

        Args:
            command: A `str` for `/bin/sh -c`, or an argv.
            cwd: Directory to run in, relative to the workspace; default the workspace.
            env: Variables set beside those of the machine.
            user: Name or id of a user of the machine; default root.
            timeout: Seconds after which the machine kills its process group; None is never.
            errors: What `stdout` and `stderr` do with what is not UTF-8, as in `bytes.decode`.

        Raises:
            SandboxFileNotFound: `cwd` does not exist.
            LookupError: The machine has no such user.
        """
        prepared = make_command(
            command, cwd=cwd, env=env, user=user, timeout_s=timeout, keep_stdin=True
        )
        check_errors(errors)
        update = self._channel.start(prepared, wait_s=0.0, forget=False)
        at = self.attachment
        process = RemoteProcess(self._channel, self._clock, update, command, at.machine_id, errors)
        self.started.append(process)
        return process
