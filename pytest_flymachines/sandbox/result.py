"""`ExecResult`: how a command ended."""

from __future__ import annotations

import subprocess

from pytest_flymachines.errors import CommandFailed

__all__ = ["ExecResult"]


class ExecResult(subprocess.CompletedProcess[str]):
    """A command that has ended; true if its exit code is 0.

    Attributes (beside `args`, `returncode`, `stdout`, `stderr` of `CompletedProcess`):
        stdout_bytes: Output as the command wrote it.
        stderr_bytes: The same for stderr.
        duration: Seconds it took, by the machine's clock.
        stdout_truncated: The machine could not keep all of stdout.
        stderr_truncated: The same for stderr.
        machine_id: The machine that ran it.
    """

    def __init__(
        self,
        args: str | list[str],
        returncode: int,
        stdout_bytes: bytes = b"",
        stderr_bytes: bytes = b"",
        *,
        errors: str = "surrogateescape",
        duration: float = 0.0,
        stdout_truncated: bool = False,
        stderr_truncated: bool = False,
        machine_id: str = "",
    ) -> None:
        super().__init__(
            args,
            returncode,
            stdout_bytes.decode("utf-8", errors),
            stderr_bytes.decode("utf-8", errors),
        )
        self.stdout_bytes = stdout_bytes
        self.stderr_bytes = stderr_bytes
        self.duration = duration
        self.stdout_truncated = stdout_truncated
        self.stderr_truncated = stderr_truncated
        self.machine_id = machine_id

    @property
    def exit_code(self) -> int:
        """The exit code; 128 + n for a command that signal n ended."""
        return int(self.returncode)

    @property
    def ok(self) -> bool:
        """Whether the exit code is 0."""
        return self.exit_code == 0

    def __bool__(self) -> bool:
        return self.ok

    def check_returncode(self) -> None:
        """Raise `CommandFailed` if the exit code is not 0."""
        if not self.ok:
            raise CommandFailed(
                self.exit_code, self.args, self.stdout, self.stderr, self.machine_id
            )
