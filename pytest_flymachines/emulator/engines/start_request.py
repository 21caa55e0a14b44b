"""What a supervisor's `start` request says of a machine, whatever the engine."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence

from pytest_flymachines.emulator.engines.base import GuestFile, MachineConfigForEngine, Program

__all__ = ["files_field", "programs_field"]


def files_field(files: Sequence[GuestFile]) -> list[dict[str, object]]:
    """The `files` of a supervisor's `start` request."""
    return [
        {"path": f.path, "content": b64encode(f.content).decode(), "mode": f.mode} for f in files
    ]


def programs_field(
    machine: MachineConfigForEngine, environment: Callable[[Mapping[str, str]], Mapping[str, str]]
) -> list[dict[str, object]]:
    """The `programs` of a supervisor's `start` request.

    Args:
        machine: Whose main processes they are.
        environment: The environment of a program, from what its config says.
    """
    return [
        {"argv": _command(program), "env": dict(environment(program.env)), "user": program.user}
        for program in (machine, *machine.others)
    ]


def _command(program: Program) -> list[str]:
    """`init.exec`, else entrypoint and cmd, else something that stays.

    The CMD of most images is a shell, and a machine of one ends at once for want of input.
    """
    if program.argv:
        return list(program.argv)
    return [*(program.entrypoint or ()), *(program.cmd or ())] or ["sleep", "infinity"]
