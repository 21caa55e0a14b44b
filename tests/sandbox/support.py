"""Waiting for what a machine does on its own, and looking at its processes."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from pytest_flymachines.errors import CommandTimeout
from pytest_flymachines.sandbox import Sandbox


def wait_until(condition: Callable[[], object], what: str = "the condition") -> None:
    """Wait until a condition holds; fails after half a minute."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true"
        time.sleep(0.05)


def timed_out(
    sandbox: Sandbox, command: str, got_far: Callable[[CommandTimeout], object]
) -> CommandTimeout:
    """The error of a command whose time is over, but that had got far enough to look at.

    A second will do; a computer that is busy gets more.
    """
    for timeout in (1, 4, 16):
        with pytest.raises(CommandTimeout) as info:
            sandbox.exec(command, timeout=timeout)
        assert info.value.timeout == timeout
        if got_far(info.value):
            break
    return info.value


def gone(sandbox: Sandbox, pid: str) -> bool:
    """Whether no process of this id runs in the machine; a zombie does not run."""
    script = f"read -r _ _ state _ </proc/{pid}/stat && [ $state != Z ]"
    return sandbox.exec(f"{{ {script}; }} 2>/dev/null", check=False, cwd="/").exit_code != 0
