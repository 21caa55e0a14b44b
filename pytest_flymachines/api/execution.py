"""Running a command in a machine through the Machines API."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from pytest_flymachines._http import Response
from pytest_flymachines.api.caller import Caller
from pytest_flymachines.api.calls import Call
from pytest_flymachines.api.machines import machine_path
from pytest_flymachines.api.models import ExecResponse
from pytest_flymachines.errors import ApiError, ApiUnreachable, SettingsError

__all__ = ["EXEC_BODY_BYTES", "EXEC_TIMEOUT_S", "ExecCalls"]

# What the server within the machine takes
# (https://github.com/superfly/init-snapshot/blob/public/src/bin/init/main.rs); beyond it the
# API answers 200, exit code 0, and an error text as output.
EXEC_BODY_BYTES = 16 * 1024
EXEC_TIMEOUT_S = 60
_REFUSED = "Unhandled rejection: Rejection(["
_MARGIN_S = 10.0
# whoever sends it was interrupted, and is not to wait for long
_URGENT_RETRY_S = 10.0


class _ExecRequest(msgspec.Struct, omit_defaults=True):
    command: list[str]
    timeout: int | None = None
    stdin: str | None = None
    container: str | None = None


class _ExecAnswer(msgspec.Struct):
    exit_code: int | None = None
    exit_signal: int | None = None
    stdout: str | None = None
    stderr: str | None = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_ExecAnswer).decode


class ExecCalls(Caller):
    """The exec call."""

    def exec(
        self,
        app: str,
        machine_id: str,
        command: Sequence[str],
        *,
        stdin: str | None = None,
        timeout_s: float | None = None,
        container: str | None = None,
        repeat_safe: bool = False,
        urgent: bool = False,
    ) -> ExecResponse:
        """Run one command in a machine and wait for its end.

        Fly runs it as root in `/`, without a shell, and gives its output whole at the end. A
        command that takes longer than `timeout_s`, often already one that takes longer than
        30 s, is answered with 408 while it goes on in the machine: start long ones detached
        (`setsid ... >log 2>&1 </dev/null &` in `sh -c`). It is sent once, except after 429, or if
        running it twice does no harm.

        Args:
            app: App of the machine.
            machine_id: The machine.
            command: Arguments as the kernel gets them.
            stdin: Text for its standard input; some servers of Fly's drop it.
            timeout_s: Seconds, more than 0 to 60; None leaves it to Fly.
            container: For machines with several containers, the one to run it in.
            repeat_safe: Running it twice has the effect of running it once, so it is sent again
                when the connection breaks.
            urgent: Send it at once, not when Fly's rate limit allows it: for what ends another
                command. It is given up after 10 s without success.

        Raises:
            SettingsError: The request is larger, or its time longer, than Fly accepts.
            Conflict: The machine does not run (412).
            ApiError: 408 after the timeout; 200 when the machine's exec server refused.
            ApiUnreachable: No answer; the command may run all the same.
        """
        if timeout_s is not None and not 0 < timeout_s <= EXEC_TIMEOUT_S:
            raise SettingsError(
                f"timeout_s={timeout_s!r}: Fly runs an exec for more than 0, at most "
                f"{EXEC_TIMEOUT_S} s; start longer commands detached and poll them"
            )
        if isinstance(command, str) or not command:
            raise SettingsError(f"command={command!r}: expected a sequence of arguments")
        timeout = None if timeout_s is None else math.ceil(timeout_s)
        body = _encode(_ExecRequest(list(command), timeout, stdin, container))
        if len(body) >= EXEC_BODY_BYTES:
            raise SettingsError(
                f"the exec request has {len(body)} bytes, but Fly takes less than "
                f"{EXEC_BODY_BYTES}: send data in the machine's config.files, or in pieces"
            )
        path = f"{machine_path(app, machine_id)}/exec"
        answer = self._call(
            "POST",
            path,
            Call(
                "exec",
                machine_id,
                repeat_safe=repeat_safe,
                retry_s=_URGENT_RETRY_S if urgent else None,
                urgent=urgent,
            ),
            content=body,
            timeout_s=(timeout or EXEC_TIMEOUT_S) + _MARGIN_S,
        )
        return _outcome(path, answer)


def _outcome(path: str, answer: Response) -> ExecResponse:
    try:
        ended = _decode(answer.content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiUnreachable(
            f"POST {path} answered {answer.status_code} with a body that cannot be read "
            f"({error}): {answer.text[:200]!r}",
            ambiguous=True,
        ) from None
    stdout, stderr = ended.stdout or "", ended.stderr or ""
    for output in (stdout, stderr):
        if output.lstrip().startswith(_REFUSED):
            raise ApiError(
                "POST",
                path,
                answer.status_code,
                answer.text,
                answer.headers.get("fly-request-id", ""),
                f"the machine's exec server refused the request: {output.strip()[:500]}",
            )
    number = ended.exit_signal or 0
    code = ended.exit_code
    return ExecResponse(
        exit_code=(128 + number if number > 0 else 0) if code is None else code,
        exit_signal=number,
        stdout=stdout,
        stderr=stderr,
    )
