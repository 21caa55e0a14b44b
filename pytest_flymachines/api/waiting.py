"""Waiting for a machine's state, also longer than one call of the API can."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from pytest_flymachines._http import Param
from pytest_flymachines.api.answers import decode
from pytest_flymachines.api.calls import Call
from pytest_flymachines.api.machines import MachineCalls, machine_path
from pytest_flymachines.api.models import ExitEvent, Machine
from pytest_flymachines.errors import (
    ApiError,
    ApiUnreachable,
    NotFound,
    SettingsError,
    Unauthorized,
    WaitTimeout,
)

__all__ = ["StateMissed", "WaitCalls"]

# What the wait call accepts (https://docs.machines.dev)
_STATES = frozenset({"started", "stopped", "suspended", "destroyed", "failed", "settled"})
_SETTLED = frozenset({"started", "stopped", "suspended", "destroyed", "failed"})
_POLL_S = 60
# No way leads back from these (https://fly.io/docs/machines/machine-states/).
_GONE = frozenset({"destroyed", "destroying", "launch_failed", "migrated", "replaced"})

# Refusals to wait, at once, that say nothing about the machine: reading it once a second does.
# One says that nothing leads to the state, one was asked of every wait for `stopped` for years
# (https://github.com/superfly/flyctl/issues/1751).
_NO_POLL = re.compile("not transitioning|instance_id required")

_MARGIN_S = 10.0  # the answer may come a little after the time that was asked for
_PAUSE_S = 1.0  # Fly's limit is one wait a second for each machine
_UNKNOWN_S = 5.0  # for so long a new machine may be unknown to the server that is asked


class StateMissed(WaitTimeout):
    """A machine will not reach the state that was waited for: it rests in another one.

    Attributes:
        state: The state that it is in.
        machine: The machine as it was read last.
        exit_event: How its main process ended, if it did.
    """

    def __init__(self, message: str, machine: Machine) -> None:
        super().__init__(message, machine.state)
        self.machine = machine
        self.exit_event: ExitEvent | None = machine.exit_event

    def __reduce__(self) -> tuple[type[StateMissed], tuple[str, Machine]]:
        return type(self), (str(self), self.machine)


@dataclass(frozen=True)
class _Target:
    """What is waited for."""

    app: str
    machine_id: str
    states: tuple[str, ...]
    version: str | None
    from_event_id: str | None

    def __str__(self) -> str:
        return f"machine {self.machine_id} of app {self.app}"

    @property
    def names(self) -> str:
        return " or ".join(self.states)

    def reached(self, machine: Machine) -> bool:
        at_rest = "settled" in self.states and machine.state in _SETTLED
        return at_rest or machine.state in self.states


class _WaitAnswer(msgspec.Struct):
    state: str = ""


class WaitCalls(MachineCalls):
    """The wait call."""

    def wait(
        self,
        app: str,
        machine_id: str,
        state: str | Sequence[str] = "started",
        *,
        timeout_s: float = 60.0,
        version: str | None = None,
        from_event_id: str | None = None,
    ) -> Machine:
        """Wait until a machine is in a state; return it as it is then.

        The API waits for 60 s at most, so it is asked again until the time is over. After each
        time the machine is read: the state may have passed by. Rate limits, errors of servers
        and cut connections are outlived.

        Args:
            app: App of the machine.
            machine_id: The machine.
            state: `started`, `stopped`, `suspended`, `destroyed`, `failed`, `settled` (any of
                those), or several of them.
            timeout_s: Seconds. At least one call is made, with 1 s.
            version: `instance_id` of the config that should be in that state, from the answer
                to a create or update.
            from_event_id: `Machine.newest_event_id` from before the action that leads to the
                state, so that an earlier stay in it, or an earlier end, does not count.

        Raises:
            StateMissed: It failed, was destroyed, or has stopped and nothing is under way.
            WaitTimeout: The time is over.
            NotFound: No such machine; when `destroyed` is waited for, that is success.
        """
        states = (state,) if isinstance(state, str) else tuple(state)
        if not states or not _STATES.issuperset(states):
            raise SettingsError(f"state={state!r}: expected any of {', '.join(sorted(_STATES))}")
        target = _Target(app, machine_id, states, version, from_event_id)
        begun = self._clock.monotonic()
        deadline = begun + timeout_s
        seen: Machine | None = None
        while True:
            polled = self._clock.monotonic()
            reached, trouble = self._poll(target, deadline - polled)
            machine, unread = self._look(target, deadline)
            if machine is None and isinstance(unread, NotFound):
                machine = self._absent(target, begun, seen, unread)
            if machine is not None:
                seen = machine
                if target.reached(machine):
                    return machine
                if _rests(machine, target, believe_stopped=trouble is None):
                    raise StateMissed(_missed(target, machine), machine)
                if reached:  # the read lags behind
                    return msgspec.structs.replace(machine, state=reached)
            now = self._clock.monotonic()
            if now >= deadline:
                raise WaitTimeout(
                    _too_late(target, timeout_s, seen, unread or trouble),
                    seen.state if seen else "",
                )
            self._clock.sleep(min(polled + _PAUSE_S, deadline) - now)

    def _poll(self, target: _Target, left_s: float) -> tuple[str, ApiError | ApiUnreachable | None]:
        """One wait call: the state reached, or "" after the poll's time or with a trouble."""
        poll_s = max(1, min(_POLL_S, math.ceil(left_s)))
        params: dict[str, Param | tuple[str, ...]] = {
            "state": target.states,
            "timeout": poll_s,
            "version": target.version,
            "from_event_id": target.from_event_id,
        }
        # not `repeat_safe`: what is left of the time must be asked for anew
        call = Call("wait", target.machine_id, retry_s=max(left_s, 0.0))
        path = f"{machine_path(target.app, target.machine_id)}/wait"
        try:
            answer = self._call("GET", path, call, params=params, timeout_s=poll_s + _MARGIN_S)
            return decode(answer, _WaitAnswer).state or target.states[0], None
        except ApiUnreachable as error:
            return "", error
        except ApiError as error:
            if error.status == 408 or (error.status == 400 and _NO_POLL.search(error.message)):
                return "", None
            if error.status in (404, 429) or error.status >= 500:
                return "", error
            raise

    def _look(
        self, target: _Target, deadline: float
    ) -> tuple[Machine | None, ApiError | ApiUnreachable | None]:
        """The machine, or why it cannot be read now."""
        left_s = max(deadline - self._clock.monotonic(), 0.0)
        try:
            return self._get(target.app, target.machine_id, retry_s=left_s), None
        except ApiUnreachable as error:
            return None, error
        except ApiError as error:
            if isinstance(error, Unauthorized):
                raise
            return None, error

    def _absent(
        self, target: _Target, begun: float, seen: Machine | None, error: NotFound
    ) -> Machine | None:
        """What a 404 means: gone, not known yet (None), or never there."""
        if seen is not None or "destroyed" in target.states:
            return msgspec.structs.replace(seen or Machine(id=target.machine_id), state="destroyed")
        if self._clock.monotonic() - begun >= _UNKNOWN_S:
            raise error
        return None


def _rests(machine: Machine, target: _Target, *, believe_stopped: bool) -> bool:
    """Whether the machine will not leave its state towards the target by itself."""
    if "destroyed" in target.states:
        return False  # every state can lead there
    if machine.state in _GONE or machine.state == "failed":
        return True
    return machine.state == "stopped" and believe_stopped and _ended(machine, target)


def _ended(machine: Machine, target: _Target) -> bool:
    """Whether the last thing that happened is an end of the main process, and nothing is asked.

    Events are newest first. An update or a restart stops the machine too, as its first step.
    """
    if target.version is not None and machine.instance_id != target.version:
        return False
    ended = False
    for event in machine.events:
        begins = event.type in ("start", "launch") or event.status == "started"
        if not ended:
            exit_event = event.exit_event
            if exit_event is None:
                if begins or event.type in ("restart", "update"):
                    return False
                continue
            old = target.from_event_id and event.id and event.id <= target.from_event_id
            if exit_event.restarting or old:
                return False
            ended = True
        elif begins:
            return True
        elif event.type in ("restart", "update"):
            return False
    return ended


def _missed(target: _Target, machine: Machine) -> str:
    how = f", its main process ended with {machine.exit_event}" if machine.exit_event else ""
    return (
        f"{target} will not be {target.names}: it is {machine.state}{how}; "
        f"`fly logs -a {target.app} --machine {target.machine_id}` may say why"
    )


def _too_late(
    target: _Target, timeout_s: float, seen: Machine | None, trouble: Exception | None
) -> str:
    state = seen.state if seen else "unknown"
    text = f"{target} is not {target.names} after {timeout_s:g} s, but {state}"
    if seen and seen.state == "created":
        text += (
            "; its image is still being pulled or its region is short of room: wait longer, or "
            "destroy it and try another region"
        )
    elif seen and seen.host_status != "ok":
        text += f"; its host is {seen.host_status}"
    return f"{text}; last trouble: {trouble}" if trouble else text
