"""How a machine's record changes: states entered, events, and who waits for them.

Events: https://fly.io/docs/machines/api/machines-resource/; the exit event is that of
`machine_types.go` in superfly/fly-go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pytest_flymachines.emulator.engines.base import ExitStatus
from pytest_flymachines.emulator.ids import new_ulid
from pytest_flymachines.emulator.model import Machine, Transition
from pytest_flymachines.emulator.wiretime import now_ms, rfc3339_ms

__all__ = ["Happening", "Journal", "Observer", "exit_happening"]

Observer = Callable[[Transition], None]
#: Type, status and source of an event, and its request if it has one.
Happening = tuple[str, str, str] | tuple[str, str, str, dict[str, Any]]

MAX_TRANSITIONS = 200


class Journal:
    """Writes the record of one machine."""

    def __init__(self, machine: Machine, changed: Callable[[Machine], None]) -> None:
        self.observers: list[Observer] = []
        self._machine = machine
        self._changed = changed

    def enter(self, state: str, happening: Happening | None = None) -> None:
        """Enter a state, with the event that tells of it if there is one."""
        machine = self._machine
        event = machine.record(*happening) if happening else None
        transition = Transition(event.id if event else new_ulid(), state, machine.instance_id)
        machine.state = state
        machine.updated_ms = now_ms()
        machine.transitions.append(transition)
        del machine.transitions[:-MAX_TRANSITIONS]
        self._changed(machine)
        for observer in tuple(self.observers):
            observer(transition)

    def note(self, happening: Happening) -> None:
        """An event that changes no state."""
        self._machine.record(*happening)
        self._changed(self._machine)


def exit_happening(
    machine: Machine, status: ExitStatus, *, requested: bool, restarting: bool = False
) -> Happening:
    """The event of a main process that has ended.

    Args:
        machine: Its restarts are counted in the event.
        status: How it ended.
        requested: Somebody asked for it.
        restarting: It will be started again.
    """
    exit_event = {
        "exit_code": status.exit_code,
        "guest_exit_code": 0,
        "guest_signal": -1,
        "signal": -1 if status.signal is None else status.signal,
        "oom_killed": status.oom_killed,
        "requested_stop": requested,
        "restarting": restarting,
        "exited_at": rfc3339_ms(now_ms()),
    }
    count = len(machine.restarts_ms) if restarting and not requested else 0
    return "exit", "stopped", "flyd", {"exit_event": exit_event, "restart_count": count}
