"""Directories that take long to make and seldom change, kept in the user's cache directory."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

__all__ = ["Kept", "keep"]


class Kept:
    """A directory that nobody removes until this is closed.

    Attributes:
        path: Not to be changed: other processes have it too.
    """

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    def close(self) -> None:
        """Give it free; more than once does not matter."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def keep(name: str, fingerprint: str, make: Callable[[Path], None], otherwise: Path) -> Kept:
    """The directory of this name and fingerprint; made now if there is none.

    Those of the same name and another fingerprint that nobody uses are removed then.

    Args:
        name: What it is.
        fingerprint: Of all that it depends on.
        make: Makes it at a path that does not exist yet.
        otherwise: Where to keep it if the user's cache directory cannot be written.
    """
    try:
        return _keep(_cache_directory(), name, fingerprint, make)
    except OSError:
        return _keep(otherwise, name, fingerprint, make)


def _keep(cache: Path, name: str, fingerprint: str, make: Callable[[Path], None]) -> Kept:
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    name = f"{name}-{os.geteuid()}"
    directory = cache / f"{name}-{fingerprint}"
    lock = os.open(f"{directory}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            fcntl.flock(lock, fcntl.LOCK_SH)
            if directory.exists():
                return Kept(directory, lock)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not directory.exists():
                _remove_unused(cache, name, directory)
                new = directory.with_suffix(".new")
                _remove(new)
                make(new)
                new.rename(directory)
    except BaseException:
        os.close(lock)
        raise


def _remove_unused(cache: Path, name: str, wanted: Path) -> None:
    for path in cache.glob(f"{name}-*.lock"):
        if path.with_suffix("") != wanted:
            lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _remove(path.with_suffix(""))
            finally:
                os.close(lock)


def _remove(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)


def _cache_directory() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
    if not Path(home).is_absolute():
        raise FileNotFoundError("neither HOME nor a home directory of this user is known")
    return Path(home) / "pytest-flymachines"
