"""What the workers of a run have in common: one writes it, one tells of it, all learn secrets."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from pytest_flymachines.cassettes.keys import CassetteKey

__all__ = ["Claims", "Seen"]


class Seen(msgspec.Struct):
    """What a process has recorded.

    Attributes:
        learnt: Names and values that it took for secrets while it ran, in this order.
        written: Cassettes, and how many of those it knew when it wrote each.
    """

    learnt: list[tuple[str, bytes]]
    written: list[tuple[str, int]]


class Claims:
    """Who does what.

    Args:
        shared: A directory of the run; None, if there is but this process.
    """

    def __init__(self, shared: Path | None) -> None:
        self._shared = shared
        self._told: set[CassetteKey] = set()

    @contextmanager
    def turn(self, key: CassetteKey, *, again: bool) -> Iterator[bool]:
        """Whether this process is to write an owner's cassette; if it does, no other is.

        Args:
            key: The owner.
            again: It was this process that wrote it before.
        """
        if key.kind == "test" or self._shared is None:
            yield True
            return
        from filelock import FileLock

        with FileLock(self._mark(key, "lock")):
            claim = self._mark(key, "written")
            mine = again or not claim.exists()
            yield mine
            if mine:
                claim.touch()

    def told_before(self, key: CassetteKey) -> bool:
        """Whether this was asked for an owner before, in any process."""
        if self._shared is None:
            before = key in self._told
            self._told.add(key)
            return before
        try:
            self._mark(key, "told").touch(exist_ok=False)
        except FileExistsError:
            return True
        return False

    def _mark(self, key: CassetteKey, kind: str) -> Path:
        assert self._shared is not None
        self._shared.mkdir(parents=True, exist_ok=True)
        return self._shared / f"{hashlib.sha256(str(key.path).encode()).hexdigest()[:16]}.{kind}"
