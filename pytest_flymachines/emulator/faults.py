"""Faults on demand: what Fly does on a bad day, when a user asks for it.

A fault of a request (`status`, `delay`, `reset`, `lost`, and `death` with a path) is chosen by
method and path; one of a machine (`slow-boot`, `stuck`, `capacity`, `image-pull`, `death`) by
the machine's app and its id or name. Chance comes from a seed, so that a run can be repeated.
"""

from __future__ import annotations

import random
from fnmatch import fnmatchcase
from typing import Literal

import msgspec
from msgspec import Struct, field

from pytest_flymachines.emulator.model import Machine

__all__ = ["KINDS", "Fault", "FaultError", "Faults", "parse_fault"]

Kind = Literal[
    "status", "delay", "reset", "lost", "slow-boot", "stuck", "capacity", "image-pull", "death"
]
KINDS: tuple[str, ...] = Kind.__args__  # type: ignore[attr-defined]  # of typing.Literal
OF_REQUESTS = ("status", "delay", "reset", "lost", "death")

#: What the value in `kind=value` is.
SHORTHAND = {
    "status": "status",
    "delay": "delay_s",
    "reset": "when",
    "slow-boot": "delay_s",
    "stuck": "state",
    "death": "delay_s",
}


class FaultError(ValueError):
    """A fault that makes no sense."""


class Fault(Struct, kw_only=True, forbid_unknown_fields=True):
    """One fault.

    Attributes:
        kind: `status` answers with a status; `delay` waits; `reset` breaks the connection
            with a TCP reset; `lost` does the work and closes the connection without an answer;
            `slow-boot` keeps a machine in `starting` for `delay_s`; `stuck` keeps it in `state`
            (for ever, or for `delay_s`); `capacity` refuses create, start and update for lack of
            room; `image-pull` makes a new machine end in `launch_failed`; `death` kills a
            machine `delay_s` after its start, or, with a path, after a request to it came in.
        method: Of the request, or `*`.
        path: Of the request; `*` and `?` are wildcards.
        app: Name of the app, with wildcards.
        machine: Id or name of the machine, with wildcards.
        status: For `status`.
        body: For `status`: the `error` text.
        when: For `status`, `reset` and `delay`: `before` or `after` the request took effect.
        delay_s: Seconds.
        state: For `stuck`: created, starting, stopping, suspending, restarting, replacing,
            destroying.
        skip: This many matches are let through first.
        count: This many matches are hit; None means all.
        probability: Of a match being hit.
        seed: For `probability`.
        id: Given by the emulator.
        hits: How often it struck.
    """

    kind: Kind
    method: str = "*"
    path: str = "*"
    app: str = "*"
    machine: str = "*"
    status: int = 503
    body: str = "injected fault"
    when: Literal["before", "after"] = "before"
    delay_s: float = 0.0
    state: str = "created"
    skip: int = 0
    count: int | None = None
    probability: float = 1.0
    seed: int = 0
    id: int = 0
    hits: int = 0

    def __post_init__(self) -> None:
        if not 400 <= self.status <= 599:
            raise ValueError(f"status {self.status} is not between 400 and 599")
        if not 0.0 <= self.probability <= 1.0:
            raise ValueError(f"probability {self.probability} is not between 0 and 1")
        if not 0.0 <= self.delay_s <= 86_400.0:
            raise ValueError(f"delay_s {self.delay_s} is not between 0 and 86400")


class _Armed(Struct):
    fault: Fault
    chance: random.Random
    skipped: int = field(default=0)

    def strikes(self) -> bool:
        fault = self.fault
        if fault.count is not None and fault.hits >= fault.count:
            return False
        if self.skipped < fault.skip:
            self.skipped += 1
            return False
        if fault.probability < 1.0 and self.chance.random() >= fault.probability:
            return False
        fault.hits += 1
        return True


class Faults:
    """The faults in force."""

    def __init__(self, faults: list[Fault] | None = None) -> None:
        self._armed: list[_Armed] = []
        self._next = 1
        for fault in faults or ():
            self.add(fault)

    def add(self, fault: Fault) -> Fault:
        """Put a fault in force; it gets an id."""
        fault.id, fault.hits = self._next, 0
        self._next += 1
        self._armed.append(_Armed(fault, random.Random(fault.seed)))  # noqa: S311 - repeatable
        return fault

    def all(self) -> list[Fault]:
        """All of them, spent ones too."""
        return [armed.fault for armed in self._armed]

    def remove(self, fault_id: int | None = None) -> bool:
        """Remove one, or all; False when there was none."""
        before = len(self._armed)
        self._armed = [armed for armed in self._armed if fault_id not in (None, armed.fault.id)]
        return len(self._armed) < before

    def of_request(self, method: str, path: str) -> list[Fault]:
        """The faults that strike this request."""
        return [
            armed.fault
            for armed in self._armed
            if armed.fault.kind in OF_REQUESTS
            and (armed.fault.kind != "death" or armed.fault.path != "*")
            and armed.fault.method.upper() in ("*", method)
            and fnmatchcase(path, armed.fault.path)
            and armed.strikes()
        ]

    def take(self, kind: str, machine: Machine, state: str | None = None) -> Fault | None:
        """The first fault of this kind that strikes this machine."""
        for armed in self._armed:
            fault = armed.fault
            if (
                fault.kind == kind
                and (kind != "death" or fault.path == "*")
                and (kind != "stuck" or fault.state == state)
                and fnmatchcase(machine.app, fault.app)
                and (
                    fnmatchcase(machine.id, fault.machine)
                    or fnmatchcase(machine.name, fault.machine)
                )
                and armed.strikes()
            ):
                return fault
        return None


def parse_fault(text: str) -> Fault:
    """Read `kind[=value][,key=value]...`, such as `status=503,method=POST,count=2`.

    Raises:
        FaultError: With what is wrong and what is accepted.
    """
    first, *rest = text.split(",")
    kind, _, value = first.strip().partition("=")
    if kind not in KINDS:
        raise FaultError(f"fault {text!r}: kind {kind!r} is none of {', '.join(KINDS)}")
    given = {"kind": kind}
    if value:
        if kind not in SHORTHAND:
            raise FaultError(f"fault {text!r}: {kind} takes no value")
        given[SHORTHAND[kind]] = value
    for pair in rest:
        key, equals, value = pair.strip().partition("=")
        if not equals:
            raise FaultError(f"fault {text!r}: {pair!r} is not key=value")
        given[key] = value
    try:
        return msgspec.convert(given, Fault, strict=False)
    except msgspec.ValidationError as error:
        raise FaultError(f"fault {text!r}: {error}") from None
