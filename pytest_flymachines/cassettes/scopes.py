"""Whose requests are made now: a test's, a wider fixture's, or a provisioning's."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_flymachines.cassettes.keys import CassetteKey
from pytest_flymachines.cassettes.tape import Blank, Playback
from pytest_flymachines.errors import CassetteMiss

__all__ = ["Scope", "Scopes"]


@dataclass(eq=False)
class Scope:
    """One owner of requests, while it makes them.

    Attributes:
        key: Who.
        path: Its cassette.
        header: What the cassette will say beside what every cassette says.
        blank: What is recorded, if anything is.
        tape: What is replayed, once something was asked for.
        misses: What replay had no answer for.
        machines: How many machines it made.
        processes: The processes that it started, by name, and the position of each.
        wanted: What is recorded is to be written; else it is only looked at.
        unkept: Why the cassette that is there cannot be kept, if it is to be.
        written: How many exchanges the file on the disk has from this run.
        origin: The test in which it began, if it is none itself.
        broken: It ended in an error, so it is good for no other test than its origin.
    """

    key: CassetteKey
    path: Path
    header: dict[str, Any] = field(default_factory=dict)
    blank: Blank | None = None
    tape: Playback | None = None
    misses: list[CassetteMiss] = field(default_factory=list)
    machines: int = 0
    processes: dict[str, int] = field(default_factory=dict)
    wanted: bool = True
    unkept: str = ""
    written: int = 0
    origin: CassetteKey | None = None
    broken: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


class Scopes:
    """All scopes of a process, and which of them a thread is in.

    A request belongs to the innermost scope that its thread has entered. Threads that never
    entered one, such as those that a test starts, belong to the innermost test or fixture of
    the whole process, and never to a provisioning that another thread is busy with.

    Args:
        make: Makes a scope for a key that was not entered before, with what its header says.
    """

    def __init__(self, make: Callable[[CassetteKey, dict[str, Any]], Scope]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._known: dict[CassetteKey, Scope] = {}
        self._everywhere: list[Scope | None] = []
        self._here = _Stack()

    @contextlib.contextmanager
    def use(self, key: CassetteKey, **header: Any) -> Iterator[Scope]:
        """Make `key` the owner of what is requested meanwhile."""
        scope = self.enter(key, **header)
        try:
            yield scope
        except BaseException:
            scope.broken = True
            raise
        finally:
            self.leave(key)

    def enter(self, key: CassetteKey, *, fresh: bool = False, **header: Any) -> Scope:
        """Make `key` the owner of what is requested from now on.

        An owner that was entered before goes on where it was, unless it is to begin `fresh`,
        or ended in an error before.
        """
        with self._lock:
            scope = self._known.get(key)
            if scope is None or fresh or scope.broken:
                scope = self._known[key] = self._make(key, header)
                scope.origin = None if key.kind == "test" else self.test()
            if key.kind != "sandbox":
                self._everywhere.append(scope)
        self._here.scopes.append(scope)
        return scope

    def resume(self, scope: Scope) -> None:
        """Make a scope that was left the owner again, unless its end was noted meanwhile."""
        with self._lock:
            self._known.setdefault(scope.key, scope)
            self._everywhere.append(scope)
        self._here.scopes.append(scope)

    def leave(self, key: CassetteKey) -> None:
        """Give back to whoever was the owner before."""
        with self._lock:
            _remove_last(self._everywhere, key)
        _remove_last(self._here.scopes, key)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Let requests of this thread pass unrecorded: for what only a real machine needs."""
        self._here.scopes.append(None)
        try:
            yield
        finally:
            self._here.scopes.pop()

    def current(self) -> Scope | None:
        """The owner of a request that this thread makes now."""
        for scopes in (self._here.scopes, self._everywhere):
            if scopes:
                return scopes[-1]
        return None

    def test(self) -> CassetteKey | None:
        """The test that runs now, if one does."""
        tests = [s.key for s in self._everywhere if s is not None and s.key.kind == "test"]
        return tests[-1] if tests else None

    def forget(self, key: CassetteKey) -> Scope | None:
        """Drop a scope that has ended."""
        with self._lock:
            return self._known.pop(key, None)

    def all(self) -> list[Scope]:
        """Every scope that has not ended."""
        with self._lock:
            return list(self._known.values())


class _Stack(threading.local):
    """The scopes that one thread has entered; None lets requests pass."""

    def __init__(self) -> None:
        self.scopes: list[Scope | None] = []


def _remove_last(scopes: list[Scope | None], key: CassetteKey) -> None:
    for position in reversed(range(len(scopes))):
        scope = scopes[position]
        if scope is not None and scope.key == key:
            del scopes[position]
            return
