"""Whether a main process that ended is started again, and after how long.

Source: https://fly.io/docs/machines/guides-examples/machine-restart-policy/.
"""

from __future__ import annotations

from typing import Protocol

from pytest_flymachines.emulator.wiretime import now_ms

__all__ = ["DEFAULT_RETRIES", "WINDOW_MS", "Restartable", "backoff_s", "restarts"]

DEFAULT_RETRIES = 10
WINDOW_MS = 5 * 60 * 1000


class Restartable(Protocol):
    """A machine, or a container.

    Attributes:
        restarts_ms: When it was restarted, within the window.
    """

    restarts_ms: list[int]

    @property
    def policy(self) -> str:
        """no, always or on-failure."""
        ...

    @property
    def max_retries(self) -> int:
        """Of on-failure; 0 means the default."""
        ...


def restarts(machine: Restartable, exit_code: int) -> bool:
    """Decide by policy, and count the restart.

    `on-failure` gives up after `max_retries` (default 10) restarts within five minutes.
    """
    policy = machine.policy
    if policy == "no" or (policy != "always" and exit_code == 0):
        return False
    now = now_ms()
    machine.restarts_ms = [at for at in machine.restarts_ms if now - at < WINDOW_MS]
    most = machine.max_retries or DEFAULT_RETRIES
    if policy != "always" and len(machine.restarts_ms) >= most:
        return False
    machine.restarts_ms.append(now)
    return True


def backoff_s(machine: Restartable, base_s: float, limit_s: float) -> float:
    """The pause before a restart: none at first, then doubling from `base_s` to `limit_s`."""
    count = len(machine.restarts_ms)
    return 0.0 if count <= 1 else min(base_s * 2.0 ** min(count - 2, 30), limit_s)
