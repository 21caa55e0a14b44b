"""`POST .../exec`: one command in a machine, within the limits of Fly's guest server.

The guest server: https://github.com/superfly/init-snapshot. It takes bodies of at most 16 KiB,
runs one command at a time, and lets a command go on whose caller has stopped waiting.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Coroutine
from signal import SIGKILL
from typing import Any

from msgspec import Struct
from starlette.responses import Response

from pytest_flymachines.emulator.answers import Problem, answer, failed_precondition
from pytest_flymachines.emulator.call import MACHINE, Call, Routes
from pytest_flymachines.emulator.containers.pod import Pod
from pytest_flymachines.emulator.engines.base import EngineError, ExecOutcome, RunningMachine
from pytest_flymachines.emulator.lifecycle import Life
from pytest_flymachines.emulator.model import Transition

__all__ = ["routes"]

routes = Routes()

MAX_REQUEST = 16 * 1024
MAX_TIMEOUT_S = 60
DEFAULT_TIMEOUT_S = 30
KNOWN_S = 0.25
#: Commands whose callers have been told that the machine is suspended.
_LEFT: set[asyncio.Future[ExecOutcome]] = set()
TOO_LARGE = "Unhandled rejection: Rejection([PayloadTooLarge, MethodNotAllowed])"


class ExecRequest(Struct):
    """Body of exec."""

    command: list[str] = []
    cmd: str = ""
    stdin: str = ""
    timeout: int = 0
    container: str = ""
    machine: bool = False


@routes.on("POST", MACHINE + "/exec")
async def run(call: Call) -> Response:
    """Run a command, and answer with what it wrote once it has ended."""
    life = call.live()
    body = call.body(ExecRequest, "main.machineExecRequest")
    argv = _argv(body)
    if body.timeout > MAX_TIMEOUT_S:
        raise Problem(400, "timeout must not exceed 60 seconds")
    if body.timeout < 0:
        raise Problem(400, "timeout must not be negative")
    if body.container and body.machine:
        raise Problem(400, "container and machine are mutually exclusive")
    containers = [container.name for container in life.machine.config.containers or ()]
    if body.container and body.container not in containers:
        raise Problem(404, f"not_found: container {body.container} not found")
    if life.machine.state != "started" or life.running is None:
        raise failed_precondition("machine not running")
    if len(call.raw) > MAX_REQUEST:
        return answer({"exit_code": 0, "exit_signal": 0, "stdout": TOO_LARGE, "stderr": ""})
    outcome = await _exec(life, body, argv)
    shown: dict[str, object] = {
        "exit_signal": outcome.signal or 0,
        "stdout": outcome.stdout.decode("utf-8", "replace"),
        "stderr": outcome.stderr.decode("utf-8", "replace"),
    }
    if outcome.signal is None:
        shown["exit_code"] = outcome.exit_code or 0
    return answer(shown)


async def _exec(life: Life, body: ExecRequest, argv: list[str]) -> ExecOutcome:
    """Run when it is this command's turn; waiting for it counts.

    Raises:
        Problem: 408 when the time is over, 412 when the machine goes down meanwhile.
    """
    running = life.running
    timeout_s = body.timeout or DEFAULT_TIMEOUT_S
    clock = asyncio.get_running_loop().time
    deadline = clock() + timeout_s
    try:
        async with asyncio.timeout(timeout_s):
            await life.exec_turn.acquire()
    except TimeoutError:
        raise _over() from None
    try:
        if running is None or life.running is not running:
            raise failed_precondition("machine not running")
        place = _place(running, body)
        left_s = max(deadline - clock(), 0.001)
        work = place.exec(argv, stdin=body.stdin.encode(), timeout_s=left_s)
        outcome = await _unless_suspended(life, work)
    except (EngineError, OSError) as error:
        raise failed_precondition(f"exec request failed: {error}") from None
    finally:
        life.exec_turn.release()
    if life.running is not running or (outcome.signal == SIGKILL and await _ends(running)):
        raise failed_precondition("exec request failed: EOF")
    if outcome.timed_out:
        raise _over()
    return outcome


async def _ends(running: RunningMachine) -> bool:
    """Whether it was the end of the machine that killed a command, and is about to be known."""
    try:
        await asyncio.wait_for(running.wait(), KNOWN_S)
    except TimeoutError:
        return False
    return True


def _place(running: RunningMachine, body: ExecRequest) -> RunningMachine:
    """The machine, or the container that is asked for, else the first."""
    if not isinstance(running, Pod):
        return running
    container = running.inside(body.container, machine=body.machine)
    if container is None:
        raise failed_precondition("container not running")
    return container


async def _unless_suspended(life: Life, work: Coroutine[Any, Any, ExecOutcome]) -> ExecOutcome:
    """The outcome; a suspend ends the call, and the command goes on with the machine.

    Source: https://fly.io/docs/reference/suspend-resume/.
    """
    suspended = asyncio.get_running_loop().create_future()

    def observe(transition: Transition) -> None:
        if transition.state == "suspended" and not suspended.done():
            suspended.set_result(None)

    command = asyncio.ensure_future(work)
    life.observers.append(observe)
    try:
        await asyncio.wait([command, suspended], return_when=asyncio.FIRST_COMPLETED)
    finally:
        life.observers.remove(observe)
        if not command.done():
            _LEFT.add(command)
            command.add_done_callback(_let_go)
    if not command.done():
        raise failed_precondition("exec request failed: EOF")
    return command.result()


def _let_go(command: asyncio.Future[ExecOutcome]) -> None:
    """Nobody waits any longer for what a command says."""
    _LEFT.discard(command)
    if not command.cancelled():
        command.exception()


def _over() -> Problem:
    return Problem(
        408,
        'deadline_exceeded: Post "http://unix/v1/exec": net/http: request canceled '
        "(Client.Timeout exceeded while awaiting headers)",
    )


def _argv(body: ExecRequest) -> list[str]:
    """`command` as it is, else `cmd` split as a shell splits words, without a shell."""
    if body.command:
        return body.command
    try:
        argv = shlex.split(body.cmd)
    except ValueError as error:
        raise Problem(400, f"invalid cmd: {error}") from None
    if not argv:
        raise Problem(400, "command is required")
    return argv
