"""`terminal`: a program on a real terminal, and what its screen shows."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from types import TracebackType
from typing import Protocol, Self

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
    check_seconds,
    compiled,
    whole_number,
)
from pytest_flymachines.sandbox.channel import ProcessUpdate
from pytest_flymachines.sandbox.exec import WAIT_S, ExecVerbs, make_command
from pytest_flymachines.sandbox.keys import key_bytes
from pytest_flymachines.sandbox.screen import Emulation, Screen
from pytest_flymachines.sandbox.text import (
    CommandLine,
    PathArg,
    check_env,
    command_text,
    encode_data,
)

__all__ = ["Terminal", "TerminalVerbs"]


class TerminalChannel(Protocol):
    """What a terminal asks of a channel; see `Channel`."""

    def poll(
        self, process: str, *, stdout: int, stderr: int, wait_s: float, forget: bool = False
    ) -> ProcessUpdate:
        """Output from an offset, waiting for it up to `wait_s` seconds."""
        ...

    def write_stdin(self, process: str, data: bytes, *, eof: bool) -> None:
        """Type."""
        ...

    def resize(self, process: str, rows: int, cols: int) -> None:
        """Set the size."""
        ...

    def forget(self, process: str) -> None:
        """End it."""
        ...


class Terminal:
    """A program on a terminal in the machine; `with` ends it.

    Attributes:
        machine_id: The machine that runs it.
    """

    def __init__(
        self,
        channel: TerminalChannel,
        clock: Clock,
        update: ProcessUpdate,
        command: CommandLine,
        machine_id: str,
        size: tuple[int, int],
    ) -> None:
        self.machine_id = machine_id
        self._channel = channel
        self._clock = clock
        self._shown = command_text(command)
        self._emulation = Emulation(*size, answer=self._answer)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._received = 0
        self._output: list[str] = []
        self._unmatched = ""
        self._ended = False
        self._last = update
        self._complete = self._take(update)

    def __repr__(self) -> str:
        code = self.exit_code
        state = "running" if code is None else f"exit code {code}"
        return f"<Terminal {self._shown!r} {state}>"

    @property
    def exit_code(self) -> int | None:
        """Exit code as far as it is known without asking; None while the program runs."""
        return self._last.exit_code

    @property
    def output(self) -> str:
        """All output so far, control sequences included.

        Raises:
            MachineGone: The machine, or its agent, was started anew and does not know it.
        """
        self._advance(0.0)
        return "".join(self._output)

    @property
    def screen(self) -> Screen:
        """What the terminal shows now.

        Raises:
            MachineGone: The machine, or its agent, was started anew and does not know it.
        """
        self._advance(0.0)
        return self._emulation.screen()

    def send(self, data: str | bytes) -> None:
        """Type `data`, text as UTF-8, as it is.

        Raises:
            BrokenPipeError: The program has ended.
        """
        self._channel.write_stdin(self._last.id, encode_data(data), eof=False)

    def send_line(self, text: str = "") -> None:
        """Type `text` and press Enter.

        Raises:
            BrokenPipeError: The program has ended.
        """
        self.send(encode_data(text) + b"\r")

    def send_key(self, *keys: str) -> None:
        """Press `keys`: `enter`, `up`, `f1`, `ctrl-c`, `alt-x`, `pagedown`, a single character.

        Raises:
            ValueError: There is no such key; the message has all names.
            BrokenPipeError: The program has ended.
        """
        self.send(b"".join(map(key_bytes, keys)))

    def expect(self, pattern: str | re.Pattern[str], timeout: float = 30.0) -> re.Match[str]:
        r"""Wait until output matches that no `expect` before has taken.

        Args:
            pattern: Regular expression over the output as it came, with `\r\n` line ends and
                control sequences.
            timeout: Seconds.

        Raises:
            ExpectTimeout: Time has passed, or the program has ended, without a match; the
                message shows the screen.
        """
        regex = compiled(pattern)

        def found() -> re.Match[str] | None:
            match = regex.search(self._unmatched)
            if match:
                self._unmatched = self._unmatched[match.end() :]
            return match

        return self._until(found, f"{regex.pattern!r} in its output", timeout)

    def expect_screen(self, pattern: str | re.Pattern[str], timeout: float = 30.0) -> re.Match[str]:
        """Wait until the text of the screen matches; for programs that draw all over it.

        Args:
            pattern: Regular expression, searched with `re.MULTILINE` if it is a `str`.
            timeout: Seconds.

        Raises:
            ExpectTimeout: As `expect`.
        """
        regex = compiled(pattern, re.MULTILINE)
        return self._until(
            lambda: regex.search(self._emulation.screen().text),
            f"{regex.pattern!r} on its screen",
            timeout,
        )

    def resize(self, rows: int, cols: int) -> None:
        """Give the terminal another size, in characters; the program gets SIGWINCH.

        Raises:
            ValueError: `rows` or `cols` is not from 1 to 1000.
        """
        check_size(rows, cols)
        self._channel.resize(self._last.id, rows, cols)
        self._emulation.resize(rows, cols)

    def wait(self, timeout: float | None = 30.0) -> int:
        """Wait for the program's end; its exit code.

        Args:
            timeout: Seconds; None waits as long as it takes.

        Raises:
            CommandTimeout: It still runs, and goes on running.
        """
        if timeout is not None:
            check_seconds("timeout", timeout, none="for as long as it takes")
        deadline = None if timeout is None else self._clock.monotonic() + timeout
        while not self._complete:
            if deadline is not None and self._clock.monotonic() >= deadline:
                shown = self._emulation.screen().text
                raise CommandTimeout(self._shown, timeout or 0.0, shown, "", self.machine_id)
            self._advance(WAIT_S if timeout is None else min(WAIT_S, timeout))
        return self.exit_code or 0

    def end(self) -> None:
        """End the program and take its terminal down.

        Raises nothing where the machine or its agent is gone already.
        """
        if not self._ended:
            self._ended = True
            with suppress(LookupError, MachineGone, AgentUnavailable, ApiError):
                self._advance(0.0)
                self._channel.forget(self._last.id)

    def transcript(self) -> str:
        """Command, state and screen, for a report."""
        return f"{self!r}\n--- screen ---\n{self._emulation.screen().text}"

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

    def _until(
        self, found: Callable[[], re.Match[str] | None], what: str, timeout: float
    ) -> re.Match[str]:
        check_seconds("timeout", timeout)
        deadline = self._clock.monotonic() + timeout
        while not (match := found()):
            late = self._clock.monotonic() >= deadline
            if late or self._complete:
                how = "and has ended" if self._complete else f"for {timeout:g} s"
                raise ExpectTimeout(
                    f"{self._shown!r} on machine {self.machine_id} did not show {what} {how}\n"
                    f"{self.transcript()}"
                )
            self._advance(min(WAIT_S, timeout))
        return match

    def _advance(self, wait_s: float) -> None:
        if self._complete:
            return
        try:
            update = self._channel.poll(
                self._last.id, stdout=self._received, stderr=0, wait_s=wait_s
            )
        except LookupError as error:
            raise MachineGone(
                f"machine {self.machine_id} does not know the terminal of {self._shown!r} any "
                f"more ({error}): it, or its agent, was started anew, or the terminal was ended"
            ) from error
        self._complete = self._take(update)

    def _take(self, update: ProcessUpdate) -> bool:
        """Show an update; true when it was the last."""
        self._last = update
        self._received += len(update.stdout)
        complete = not update.running and self._received >= update.stdout_size
        text = self._decoder.decode(update.stdout, complete)
        self._output.append(text)
        self._unmatched += text
        self._emulation.feed(text)
        return complete

    def _answer(self, data: str) -> None:
        """What the terminal itself sends, such as the cursor's position when asked for it."""
        with suppress(BrokenPipeError):
            self.send(data)


def check_size(rows: int, cols: int) -> None:
    """Refuse what no terminal can be."""
    for name, value in (("rows", rows), ("cols", cols)):
        whole_number(name, value, "1 to 1000 characters", 1, 1000)


class TerminalVerbs(ExecVerbs):
    """Programs on a terminal."""

    def terminal(
        self,
        command: CommandLine = "/bin/sh",
        *,
        rows: int = 24,
        cols: int = 80,
        cwd: PathArg | None = None,
        env: Mapping[str, str] | None = None,
        user: str | int | None = None,
    ) -> Terminal:
        """Start a program on a new terminal of the machine.

        Args:
            command: A `str` for `/bin/sh -c`, or an argv.
            rows: Height, 1 to 1000.
            cols: Width, 1 to 1000.
            cwd: Directory to run in, relative to the workspace; default the workspace.
            env: Variables set beside those of the machine; `TERM` is `xterm-256color`.
            user: Name or id of a user of the machine; default root.

        Raises:
            ValueError: `rows` or `cols` is not from 1 to 1000.
            SandboxFileNotFound: `cwd` does not exist.
            LookupError: The machine has no such user.
            FlyMachinesError: pyte is not installed; or, without agent, the image has no
                `script` program.
        """
        check_size(rows, cols)
        prepared = make_command(
            command,
            cwd=cwd,
            env={"TERM": "xterm-256color", **check_env(env)},
            user=user,
            keep_stdin=True,
            pty=(rows, cols),
        )
        update = self._channel.start(prepared, wait_s=0.0, forget=False)
        machine = self.attachment.machine_id
        terminal = Terminal(self._channel, self._clock, update, command, machine, (rows, cols))
        self.started.append(terminal)
        return terminal
