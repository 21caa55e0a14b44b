"""Everything that this package raises.

FlyMachinesError
├── SettingsError (ValueError)           an option, variable or spec field that makes no sense
├── ApiError                             the Machines API answered with an error status
│   ├── Unauthorized (PermissionError)   401, 403
│   ├── NotFound (LookupError)           404
│   ├── Conflict                         409, 412; 422 for an app name that is taken
│   ├── RateLimited                      429
│   └── CapacityError                    409, 412, 422 for lack of room in a region or host
├── ApiUnreachable (ConnectionError)     no answer, or none that can be read
├── WaitTimeout (TimeoutError)           a machine did not reach the state in time
├── MachineStartFailed                   a sandbox did not come up; names the step that failed
├── MachineGone                          the machine stopped or was destroyed under the test
├── AgentUnavailable (ConnectionError)   cook-agent does not answer
├── CommandFailed (CalledProcessError)   a command ended with a non-zero exit code
├── CommandTimeout (TimeoutExpired, TimeoutError)
├── ExpectTimeout (TimeoutError)         text, log line or port did not appear in time
├── SandboxFileError (OSError)           a file operation failed in the machine
│   ├── SandboxFileNotFound (FileNotFoundError)
│   ├── SandboxFileExists (FileExistsError)
│   ├── SandboxNotADirectory (NotADirectoryError)
│   ├── SandboxIsADirectory (IsADirectoryError)
│   └── SandboxPermissionDenied (PermissionError)
├── CassetteError                        a cassette that cannot be read or may not be written
└── CassetteMiss                         replay was asked for something that was never recorded
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess

__all__ = [
    "AgentUnavailable",
    "ApiError",
    "ApiUnreachable",
    "CapacityError",
    "CassetteError",
    "CassetteMiss",
    "CommandFailed",
    "CommandTimeout",
    "Conflict",
    "ExpectTimeout",
    "FlyMachinesError",
    "MachineGone",
    "MachineStartFailed",
    "NotFound",
    "RateLimited",
    "SandboxFileError",
    "SandboxFileExists",
    "SandboxFileNotFound",
    "SandboxIsADirectory",
    "SandboxNotADirectory",
    "SandboxPermissionDenied",
    "SettingsError",
    "Unauthorized",
    "WaitTimeout",
    "file_error",
]

TAIL_CHARS = 4000


class FlyMachinesError(Exception):
    """Base of every error of this package."""


class SettingsError(FlyMachinesError, ValueError):
    """An option, environment variable or spec field has a value that is not accepted."""


class ApiError(FlyMachinesError):
    """The Machines API answered with an error status.

    Attributes:
        method: HTTP method of the request.
        path: Path of the request, without host and query.
        status: HTTP status of the answer.
        body: Body of the answer as text.
        request_id: Value of the `fly-request-id` header, empty when there was none.
        message: The `error` (or `message`) text of the body, else the body itself.
    """

    def __init__(
        self,
        method: str,
        path: str,
        status: int,
        body: str,
        request_id: str = "",
        message: str = "",
    ) -> None:
        self.method = method
        self.path = path
        self.status = status
        self.body = body
        self.request_id = request_id
        self.message: str = message or body.strip() or "(empty body)"
        super().__init__(method, path, status, body, request_id, message)

    @property
    def ambiguous(self) -> bool:
        """Whether the request may have taken effect all the same: look before you repeat it."""
        return self.method != "GET" and (self.status == 408 or self.status >= 500)

    def __str__(self) -> str:
        suffix = f", fly-request-id {self.request_id}" if self.request_id else ""
        return f"{self.message} ({self.method} {self.path} answered {self.status}{suffix})"


class Unauthorized(ApiError, PermissionError):
    """401 or 403: the token is missing, wrong, expired, or not good for this app."""

    def __str__(self) -> str:
        return (
            f"{ApiError.__str__(self)}\nThe token comes from FLY_API_TOKEN (then FLY_ACCESS_TOKEN, "
            "FLY_TOKEN); `fly tokens create deploy -a <app>` makes one for an app."
        )


class NotFound(ApiError, LookupError):
    """404: no such app, machine, volume or key."""


class Conflict(ApiError):
    """409, 412: the request does not fit the present state; `message` says which.

    Also 422 for the name of an app that is taken.
    """


class RateLimited(ApiError):
    """429 after all retries."""


class CapacityError(ApiError):
    """The region or host has no room for the machine or volume."""


class ApiUnreachable(FlyMachinesError, ConnectionError):
    """A request got no answer: refused, reset, timed out, or a name that does not resolve.

    Attributes:
        ambiguous: The request may have taken effect all the same: look before you repeat it.
    """

    def __init__(self, message: str, ambiguous: bool = False) -> None:
        super().__init__(message)
        self.ambiguous = ambiguous


class WaitTimeout(FlyMachinesError, TimeoutError):
    """A machine did not reach the state that was waited for.

    Attributes:
        state: The last state seen.
    """

    def __init__(self, message: str, state: str = "") -> None:
        super().__init__(message)
        self.state = state


class MachineStartFailed(FlyMachinesError):
    """A sandbox did not come up. The message names the step, its output and what to do."""


class MachineGone(FlyMachinesError):
    """The machine stopped, was destroyed or is out of reach while a test used it."""


class AgentUnavailable(FlyMachinesError, ConnectionError):
    """cook-agent does not answer; the message holds the end of its log."""


def _tail(output: str | bytes | None) -> str:
    text = output.decode("utf-8", "replace") if isinstance(output, bytes) else output or ""
    text = text.rstrip("\n")
    return text if len(text) <= TAIL_CHARS else "[...]" + text[-TAIL_CHARS:]


def _streams(stdout: str | bytes | None, stderr: str | bytes | None) -> str:
    parts = [(name, _tail(text)) for name, text in (("stdout", stdout), ("stderr", stderr))]
    shown = "".join(f"\n--- {name} ---\n{text}" for name, text in parts if text)
    return shown or "\n(no output)"


class CommandFailed(FlyMachinesError, subprocess.CalledProcessError):
    """A command ended with a non-zero exit code and `check` was true.

    Attributes (beside those of `subprocess.CalledProcessError`):
        machine_id: The machine that ran it.
    """

    def __init__(
        self,
        returncode: int,
        cmd: str | list[str],
        output: str | bytes | None = None,
        stderr: str | bytes | None = None,
        machine_id: str = "",
    ) -> None:
        subprocess.CalledProcessError.__init__(self, returncode, cmd, output, stderr)
        self.machine_id = machine_id

    @property
    def exit_code(self) -> int:
        """The exit code; 128 + n for a command that signal n ended."""
        return self.returncode

    @property
    def outcome(self) -> str:
        """How it ended, in words."""
        ended = f"exit code {self.returncode}"
        if self.returncode > 128:
            with contextlib.suppress(ValueError):
                ended += f", {signal.Signals(self.returncode - 128).name}"
        return ended

    @property
    def shown_output(self) -> str:
        """The end of what it wrote, for a message."""
        return _streams(self.output, self.stderr)

    def __str__(self) -> str:
        return (
            f"command {self.cmd!r} failed ({self.outcome}) on machine {self.machine_id or '?'}; "
            f"pass check=False to get the result instead{self.shown_output}"
        )


class CommandTimeout(FlyMachinesError, subprocess.TimeoutExpired, TimeoutError):
    """A command was killed in the machine after `timeout` seconds; has its output so far."""

    def __init__(
        self,
        cmd: str | list[str],
        timeout: float,
        output: str | bytes | None = None,
        stderr: str | bytes | None = None,
        machine_id: str = "",
    ) -> None:
        subprocess.TimeoutExpired.__init__(self, cmd, timeout, output, stderr)
        self.machine_id = machine_id

    @property
    def outcome(self) -> str:
        """How it ended, in words."""
        return f"killed after {self.timeout:g} s"

    @property
    def shown_output(self) -> str:
        """The end of what it wrote until then, for a message."""
        return _streams(self.output, self.stderr)

    def __str__(self) -> str:
        return (
            f"command {self.cmd!r} was {self.outcome} on machine "
            f"{self.machine_id or '?'}; raise timeout= if it needs longer{self.shown_output}"
        )


class ExpectTimeout(FlyMachinesError, TimeoutError):
    """Text, a log line or a port did not appear in time; the message shows what was there."""


class SandboxFileError(FlyMachinesError, OSError):
    """A file operation failed in the machine; has errno, strerror, filename as any OSError."""


class SandboxFileNotFound(SandboxFileError, FileNotFoundError):
    """No such file or directory in the machine."""


class SandboxFileExists(SandboxFileError, FileExistsError):
    """The file exists in the machine."""


class SandboxNotADirectory(SandboxFileError, NotADirectoryError):
    """A component of the path is no directory."""


class SandboxIsADirectory(SandboxFileError, IsADirectoryError):
    """The path is a directory."""


class SandboxPermissionDenied(SandboxFileError, PermissionError):
    """The machine refused access."""


_FILE_ERRORS: dict[int, type[SandboxFileError]] = {
    errno.ENOENT: SandboxFileNotFound,
    errno.EEXIST: SandboxFileExists,
    errno.ENOTDIR: SandboxNotADirectory,
    errno.EISDIR: SandboxIsADirectory,
    errno.EACCES: SandboxPermissionDenied,
    errno.EPERM: SandboxPermissionDenied,
}


def file_error(number: int, path: str, detail: str = "") -> SandboxFileError:
    """The error for an errno of the machine's; Linux numbers, whatever this computer uses."""
    text = os.strerror(number)
    return _FILE_ERRORS.get(number, SandboxFileError)(
        number, f"{text} ({detail})" if detail else text, path
    )


class CassetteError(FlyMachinesError):
    """A cassette cannot be read, or may not be written; the message names the file."""


class CassetteMiss(FlyMachinesError):
    """Replay was asked for a request that its cassette does not hold."""
