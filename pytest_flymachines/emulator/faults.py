"""Faults on demand: what Fly does on a bad day, when a user asks for it.

Some strike a request (`status`, `delay`, `reset`, `lost`, and `death` with a method or path), the
others what becomes of a machine. Method and path choose by the request, for a machine the one
that set its work going; app and machine choose by the machine, for a request the one that its
path names. Chance comes from a seed, so that a run can be repeated.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

import msgspec
from msgspec import Struct, field

from pytest_flymachines.emulator.model import Machine

__all__ = ["KINDS", "Cause", "Fault", "FaultError", "Faults", "asking", "cause", "parse_fault"]

Kind = Literal[
    "status",
    "delay",
    "reset",
    "lost",
    "slow-boot",
    "stuck",
    "capacity",
    "image-pull",
    "death",
    "host-failure",
]
KINDS: tuple[str, ...] = Kind.__args__  # type: ignore[attr-defined]  # of typing.Literal
STATES = ("created", "starting", "stopping", "suspending", "restarting", "replacing", "destroying")
METHODS = ("*", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")

#: What the value in `kind=value` is.
SHORTHAND = {
    "status": "status",
    "delay": "delay_s",
    "reset": "when",
    "slow-boot": "delay_s",
    "stuck": "state",
    "death": "delay_s",
    "host-failure": "delay_s",
}

#: The fields with a meaning for one kind only or for some.
OWN_FIELDS = {
    "status": {"status", "body", "when"},
    "delay": {"delay_s", "when"},
    "reset": {"when"},
    "slow-boot": {"delay_s"},
    "stuck": {"state", "delay_s"},
    "death": {"delay_s"},
    "host-failure": {"delay_s"},
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
            room; `image-pull` makes a new machine end in `launch_failed`, and an updated one in
            `failed`; `death` kills a machine `delay_s` after its start, or, with a method or
            path, after a request to it came in; `host-failure` takes its host away `delay_s` after
            its start, until the fault is removed.
        method: Of the request, or `*`.
        path: Of the request; `*` and `?` are wildcards.
        app: Name of the app, with wildcards.
        machine: Id or name of the machine, with wildcards.
        status: For `status`.
        body: For `status`: the `error` text.
        when: For `status`, `reset` and `delay`: `before` or `after` the request took effect.
        delay_s: Seconds.
        state: For `stuck`.
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
        for name, accepted in (("state", STATES), ("method", METHODS)):
            if (value := getattr(self, name)) not in accepted:
                raise ValueError(f"{name} {value!r} is none of {', '.join(accepted)}")
        if not 400 <= self.status <= 599:
            raise ValueError(f"status {self.status} is not between 400 and 599")
        if not 0.0 <= self.probability <= 1.0:
            raise ValueError(f"probability {self.probability} is not between 0 and 1")
        if not 0.0 <= self.delay_s <= 86_400.0:
            raise ValueError(f"delay_s {self.delay_s} is not between 0 and 86400")
        if self.kind in ("delay", "slow-boot") and not self.delay_s:
            raise ValueError(f"{self.kind} needs a number of seconds, such as {self.kind}=2")
        if self.skip < 0 or (self.count is not None and self.count < 1):
            raise ValueError("skip is at least 0, and count at least 1")
        for name in sorted(set().union(*OWN_FIELDS.values()) - OWN_FIELDS.get(self.kind, set())):
            if getattr(self, name) != DEFAULTS[name]:
                raise ValueError(f"{name} means nothing for {self.kind}")

    @property
    def of_request(self) -> bool:
        """Whether it strikes a request, not what becomes of a machine."""
        if self.kind == "death":
            return (self.method, self.path) != ("*", "*")
        return self.kind in ("status", "delay", "reset", "lost")


DEFAULTS = {
    one.name: one.default
    for one in msgspec.structs.fields(Fault)
    if one.name not in ("kind", "id", "hits")
}


@dataclass
class Cause:
    """The request that sets something going."""

    method: str
    path: str
    over: bool = False


_cause: ContextVar[Cause | None] = ContextVar("cause", default=None)


@contextlib.contextmanager
def asking(method: str, path: str) -> Iterator[None]:
    """What is set going meanwhile is this request's doing."""
    now = Cause(method, path)
    token = _cause.set(now)
    try:
        yield
    finally:
        _cause.reset(token)
        # Tasks that were begun meanwhile have a copy of the context.
        now.over = True


def cause() -> Cause | None:
    """The request that is being served; None where nobody asked."""
    now = _cause.get()
    return now if now and not now.over else None


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

    def of_request(self, asked: Cause, app: str, machine: Machine | None) -> list[Fault]:
        """The faults that strike this request.

        Args:
            asked: The request.
            app: Name of the app that its path names; empty if it names none.
            machine: Likewise.
        """
        return [
            armed.fault
            for armed in self._armed
            if armed.fault.of_request
            and _matches(armed.fault, asked, app, machine)
            and armed.strikes()
        ]

    def take(
        self,
        kind: Kind,
        machine: Machine,
        asked: Cause | None,
        *,
        state: str | None = None,
        only: int | None = None,
    ) -> Fault | None:
        """The first fault of this kind that strikes this machine.

        Args:
            kind: Of the fault.
            machine: The machine.
            asked: The request that set its work going; None if none did.
            state: For `stuck`: the state that it is in.
            only: Id of the one fault to try.
        """
        for armed in self._armed:
            fault = armed.fault
            if (
                fault.kind == kind
                and not fault.of_request
                and only in (None, fault.id)
                and (kind != "stuck" or fault.state == state)
                and _matches(fault, asked, machine.app, machine)
                and armed.strikes()
            ):
                return fault
        return None


def _matches(fault: Fault, asked: Cause | None, app: str, machine: Machine | None) -> bool:
    """Whether all four of a fault's patterns fit; `*` also fits where there is nothing."""
    method, path = (asked.method, asked.path) if asked else ("", "")
    names = (machine.id, machine.name) if machine else ("",)
    return (
        fault.method in ("*", method)
        and fnmatchcase(path, fault.path)
        and fnmatchcase(app, fault.app)
        and any(fnmatchcase(name, fault.machine) for name in names)
    )


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
        if key not in DEFAULTS:
            raise FaultError(f"fault {text!r}: {key!r} is none of {', '.join(DEFAULTS)}")
        given[key] = value
    for number in ("probability", "delay_s"):
        if given.get(number, "").startswith("."):
            given[number] = f"0{given[number]}"  # JSON wants a digit in front
    if "method" in given:
        given["method"] = given["method"].upper()
    try:
        return msgspec.convert(given, Fault, strict=False)
    except msgspec.ValidationError as error:
        raise FaultError(f"fault {text!r}: {error}") from None
