"""Copies of checkpoints, made ahead where a workspace has to be a copy.

A copy takes as long as the checkpoint is large. So one more is made while a test runs, and the next
workspace is a rename; what is dropped is renamed away, and removed while the next test runs.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from .copying import copy_tree
from .log import log
from .names import new_directory
from .wire import Refused

# What took longer is large, and its disk may have no room for one more that nobody may need.
LONGEST_S = 2.0
FREE_BYTES = 2 << 30


class Spares:
    """At most one spare copy of each checkpoint. Thread-safe."""

    def __init__(self, directory: bytes) -> None:
        """Know where they are to be kept; the directory is made when it is needed."""
        self._directory = directory
        self._lock = threading.Lock()
        self._ready: dict[bytes, bytes] = {}
        self._under_way: dict[bytes, object] = {}

    def fill(self, checkpoint: bytes, path: bytes) -> None:
        """Make an empty directory a copy of a checkpoint, and begin another one.

        Raises:
            Refused: Copying failed.
        """
        with self._lock:
            spare = self._ready.pop(checkpoint, None)
        if spare is not None:
            os.rename(spare, path)
        else:
            began = time.monotonic()
            copy_tree(checkpoint, path)
            if time.monotonic() - began > LONGEST_S:
                return
        self._begin(checkpoint)

    def forget(self, checkpoint: bytes) -> None:
        """Drop the spare of a checkpoint that is replaced or deleted."""
        with self._lock:
            self._under_way.pop(checkpoint, None)
            spare = self._ready.pop(checkpoint, None)
        if spare is not None:
            _start(_remove, spare)

    def discard(self, path: bytes) -> None:
        """Have a directory gone now, and removed soon."""
        os.makedirs(self._directory, exist_ok=True)
        doomed = new_directory(self._directory)
        os.rename(path, doomed)
        _start(_remove, doomed)

    def _begin(self, checkpoint: bytes) -> None:
        os.makedirs(self._directory, exist_ok=True)
        free = os.statvfs(self._directory)
        with self._lock:
            known = checkpoint in self._ready or checkpoint in self._under_way
            if known or free.f_bavail * free.f_frsize < FREE_BYTES:
                return
            token = self._under_way[checkpoint] = object()
        _start(self._copy, checkpoint, token)

    def _copy(self, checkpoint: bytes, token: object) -> None:
        path = new_directory(self._directory)
        # a checkpoint that goes while it is copied is nobody's concern
        with suppress(Refused, OSError):
            copy_tree(checkpoint, path)
            with self._lock:
                if self._under_way.get(checkpoint) is token:
                    del self._under_way[checkpoint]
                    self._ready[checkpoint] = path
                    return
        with self._lock:
            if self._under_way.get(checkpoint) is token:
                del self._under_way[checkpoint]
        _remove(path)


def _start(work: Callable[..., None], *arguments: object) -> None:
    try:
        threading.Thread(target=work, args=arguments, daemon=True).start()
    except RuntimeError:  # no threads left
        work(*arguments)


def _remove(path: bytes) -> None:
    try:
        shutil.rmtree(path)
    except OSError as error:
        log(f"cannot remove {os.fsdecode(path)}: {error}")
