"""Waiting for what a machine does on its own, and looking at its processes."""

from __future__ import annotations

import time
from collections.abc import Callable

from pytest_flymachines.sandbox import Sandbox


def wait_until(condition: Callable[[], object], what: str = "the condition") -> None:
    """Wait until a condition holds; fails after half a minute."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true"
        time.sleep(0.05)


def gone(sandbox: Sandbox, pid: str) -> bool:
    """Whether no process of this id runs in the machine; a zombie does not run."""
    script = f"read -r _ _ state _ </proc/{pid}/stat && [ $state != Z ]"
    return sandbox.exec(f"{{ {script}; }} 2>/dev/null", check=False, cwd="/").exit_code != 0
