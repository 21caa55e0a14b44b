"""Who writes in a directory of cassettes: recordings side by side, or alone who deletes from it.

A large body is written before the cassette that names it, and a file before it has its name.
Who deletes what nobody names therefore waits until no cassette is being saved. The directory
itself is what is locked, so that no file is needed for it, and a process that dies lets go.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["alone", "saving", "sweep", "temporaries"]

_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.tmp")


@contextmanager
def saving(directory: Path) -> Iterator[None]:
    """Keep others from deleting while something is written.

    Where the directory cannot be made or locked, it is written without.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = _lock(directory, shared=True)
    except OSError:
        lock = None
    try:
        yield
    finally:
        if lock is not None:
            os.close(lock)


@contextmanager
def alone(directory: Path, *, wait: bool = True) -> Iterator[None]:
    """Have nobody write meanwhile.

    Args:
        directory: Of the cassettes.
        wait: Until nobody does.

    Raises:
        BlockingIOError: Somebody does, and it was not to be waited for.
        OSError: The file system has no locks.
    """
    lock = _lock(directory, shared=False, wait=wait)
    try:
        yield
    finally:
        os.close(lock)


def temporaries(directory: Path) -> list[Path]:
    """Files that are being written, or were when a crash or a kill ended that."""
    return sorted(p for p in directory.rglob(".*.tmp") if _TEMPORARY.fullmatch(p.name))


def sweep(directory: Path) -> None:
    """Delete what killed recordings have left half, unless somebody writes just now."""
    try:
        with alone(directory, wait=False):
            for path in temporaries(directory):
                path.unlink(missing_ok=True)
    except OSError:
        return  # it harms nobody, and `prune` says more


def _lock(directory: Path, *, shared: bool, wait: bool = True) -> int:
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        import fcntl  # not there on Windows, where a directory cannot be opened either

        how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(descriptor, how if wait else how | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
