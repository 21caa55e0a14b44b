"""`exec`: run a command to its end."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Literal, TypeAlias

from pytest_flymachines.errors import CommandTimeout, FlyMachinesError, MachineGone
from pytest_flymachines.sandbox.arguments import (
    check_errors,
    check_seconds,
    check_user,
)
from pytest_flymachines.sandbox.attachment import Attached
from pytest_flymachines.sandbox.channel import Channel, Command, ProcessUpdate
from pytest_flymachines.sandbox.result import ExecResult
from pytest_flymachines.sandbox.text import (
    CommandLine,
    PathArg,
    argv_of,
    check_env,
    encode_data,
    encode_path,
    shown_command,
)

__all__ = ["WAIT_S", "ExecVerbs", "OnOutput", "Stream", "make_command"]

Stream: TypeAlias = Literal["stdout", "stderr"]
OnOutput: TypeAlias = Callable[[Stream, str], object]

# The longest wait asked of one request: below the 30 s after which Fly's exec and the idle
# time-outs of proxies have been seen to cut (https://github.com/superfly/flyctl/issues/4194).
WAIT_S = 20.0
# How much longer than its time-out a command may be silent before the caller gives up on the
# machine's own watcher.
GRACE_S = 30.0


class ExecVerbs(Attached):
    """Running commands to their end."""

    def exec(
        self,
        command: CommandLine,
        *,
        cwd: PathArg | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str | bytes | None = None,
        user: str | int | None = None,
        timeout: float | None = 120.0,
        check: bool = True,
        on_output: OnOutput | None = None,
        errors: str = "surrogateescape",
    ) -> ExecResult:
        """Run a command and wait for its end.

        The command has ended when its own process has: what it left running in the background
        goes on.

        Args:
            command: A `str` for `/bin/sh -c`, or an argv.
            cwd: Directory to run in, relative to the workspace; default the workspace.
            env: Variables set beside those of the machine.
            stdin: What the command reads; default nothing.
            user: Name or id of a user of the machine; default root.
            timeout: Seconds after which the command's process group is killed in the machine;
                None is never.
            check: Raise if the exit code is not 0.
            on_output: Called with `"stdout"` or `"stderr"` and text while the command runs. An
                exception that it raises ends the command.
            errors: What to do with output that is not UTF-8, as in `bytes.decode`. By default
                no byte is lost: `stdout.encode("utf-8", "surrogateescape")` is `stdout_bytes`.

        Raises:
            CommandFailed: The exit code is not 0, and `check` is true.
            CommandTimeout: `timeout` has passed; the error has the output so far.
            SandboxFileNotFound: `cwd` does not exist.
            LookupError: The machine has no such user.
            MachineGone: The machine stopped or was destroyed.
        """
        prepared = make_command(
            command, cwd=cwd, env=env, stdin=stdin, user=user, timeout_s=timeout
        )
        output = Output(on_output, errors)
        last = _run(self._channel, prepared, output, self._clock.monotonic)
        shown = shown_command(command)
        machine = self.attachment.machine_id
        if last.timed_out:
            out, err = output.text("stdout", errors), output.text("stderr", errors)
            raise CommandTimeout(shown, timeout or 0.0, out, err, machine)
        result = ExecResult(
            shown,
            last.exit_code or 0,
            bytes(output.stdout),
            bytes(output.stderr),
            errors=errors,
            duration=last.duration_s,
            stdout_truncated=last.stdout_truncated,
            stderr_truncated=last.stderr_truncated,
            machine_id=machine,
        )
        if check:
            result.check_returncode()
        return result


def make_command(
    command: CommandLine,
    *,
    cwd: PathArg | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str | bytes | None = None,
    user: str | int | None = None,
    timeout_s: float | None = None,
    keep_stdin: bool = False,
    pty: tuple[int, int] | None = None,
) -> Command:
    """The command as a channel takes it; arguments as those of `ExecVerbs.exec`.

    Raises:
        ValueError: Something in it cannot be.
        TypeError: Something in it is of another type.
    """
    if timeout_s is not None:
        check_seconds("timeout", timeout_s, above_0=True, none="for no limit")
    return Command(
        argv=argv_of(command),
        cwd=b"" if cwd is None else encode_path(cwd),
        env=check_env(env),
        user=check_user(user),
        stdin=b"" if stdin is None else encode_data(stdin),
        keep_stdin=keep_stdin,
        timeout_s=timeout_s,
        pty=pty,
    )


class Output:
    """What a process has written so far, and whom to tell about it."""

    def __init__(self, on_output: OnOutput | None = None, errors: str = "surrogateescape") -> None:
        if on_output is not None and not callable(on_output):
            raise TypeError(f"on_output={on_output!r}: expected a function of stream and text")
        self.stdout = bytearray()
        self.stderr = bytearray()
        self._on_output = on_output
        # now, so that an unknown `errors` is found before anything runs
        check_errors(errors)
        make = codecs.getincrementaldecoder("utf-8")
        self._decoders = {"stdout": make(errors), "stderr": make(errors)}

    def add(self, update: ProcessUpdate) -> bool:
        """Take an update; true when it was the last: the process has ended and all is here."""
        self.stdout += update.stdout
        self.stderr += update.stderr
        complete = (
            not update.running
            and len(self.stdout) >= update.stdout_size
            and len(self.stderr) >= update.stderr_size
        )
        if self._on_output:
            self._tell("stdout", update.stdout, complete, self._on_output)
            self._tell("stderr", update.stderr, complete, self._on_output)
        return complete

    def _tell(self, stream: Stream, data: bytes, final: bool, on_output: OnOutput) -> None:
        if text := self._decoders[stream].decode(data, final):
            on_output(stream, text)

    def text(self, stream: Stream, errors: str) -> str:
        """All output of a stream so far."""
        return self.stream(stream).decode("utf-8", errors)

    def stream(self, stream: Stream) -> bytearray:
        """All bytes of a stream so far."""
        return self.stdout if stream == "stdout" else self.stderr


def _run(
    channel: Channel, command: Command, output: Output, now: Callable[[], float]
) -> ProcessUpdate:
    """Start, and poll to the end; whatever interrupts this ends the command in the machine."""
    limit_s = None if command.timeout_s is None else command.timeout_s + GRACE_S
    started = now()
    told = output._on_output is not None  # noqa: SLF001 - same concept
    update = channel.start(command, wait_s=0.0 if told else WAIT_S, forget=True)
    try:
        while not output.add(update):
            if limit_s is not None and update.running and now() - started > limit_s:
                channel.forget(update.id)
                return _overdue(update)
            update = channel.poll(
                update.id,
                stdout=len(output.stdout),
                stderr=len(output.stderr),
                wait_s=WAIT_S,
                forget=True,
            )
    except LookupError as error:
        raise MachineGone(
            f"the machine does not know the command's process any more ({error}): it was started "
            "anew, or its agent was, while the command ran"
        ) from error
    except BaseException:
        with suppress(FlyMachinesError, LookupError):
            channel.forget(update.id)
        raise
    return update


def _overdue(update: ProcessUpdate) -> ProcessUpdate:
    return ProcessUpdate(id=update.id, running=False, timed_out=True, duration_s=update.duration_s)
