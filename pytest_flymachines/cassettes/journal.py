"""What a worker has recorded, kept on disk until the run ends: a worker that dies tells nobody.

It holds secrets, as the run's directory does anyway, which is its owner's alone. It is removed
before the run ends.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from pytest_flymachines.cassettes.claims import Seen

__all__ = ["Journal", "take"]

_SUFFIX = ".seen"


class Journal:
    """Written by one process.

    Args:
        shared: A directory of the run; None, if there is but this process.
    """

    def __init__(self, shared: Path | None) -> None:
        self._shared = shared
        self._name = f"{os.urandom(8).hex()}{_SUFFIX}"
        self._noted = 0

    def note(self, learnt: list[tuple[str, bytes]], written: Path | None = None) -> None:
        """Keep what is new.

        Args:
            learnt: All names and values that were taken for secrets so far.
            written: A cassette that is about to be written.
        """
        if self._shared is None or (written is None and len(learnt) == self._noted):
            return
        named = [] if written is None else [(str(written), len(learnt))]
        line = msgspec.json.encode(Seen(learnt[self._noted :], named)) + b"\n"
        self._shared.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        file = os.open(self._shared / self._name, flags, 0o600)
        try:
            os.write(file, line)
        finally:
            os.close(file)
        self._noted = len(learnt)


def take(shared: Path) -> list[Seen]:
    """What each process of a run has noted, which is removed then."""
    found = []
    for path in sorted(shared.glob(f"*{_SUFFIX}")):
        found.append(_joined(path.read_bytes()))
        path.unlink()
    return found


def _joined(text: bytes) -> Seen:
    """All its lines; the last may be the half that its writer died over."""
    whole = Seen([], [])
    for line in text.splitlines(keepends=True):
        if line.endswith(b"\n"):
            part = msgspec.json.decode(line, type=Seen)
            whole.learnt += part.learnt
            whole.written += part.written
    return whole
