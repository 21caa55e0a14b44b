"""Names for temporary files and directories, all with one prefix that people can recognize."""

from __future__ import annotations

import os

PREFIX = b".flymachines-"


def new_file(directory: bytes, mode: int = 0o600) -> tuple[int, bytes]:
    """Make an empty file in `directory`; its descriptor and path."""
    while True:
        path = _new_path(directory)
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), path
        except FileExistsError:
            continue


def new_directory(directory: bytes, mode: int = 0o700) -> bytes:
    """Make an empty directory in `directory`; its path."""
    while True:
        path = _new_path(directory)
        try:
            os.mkdir(path, mode)
        except FileExistsError:
            continue
        return path


def _new_path(directory: bytes) -> bytes:
    return os.path.join(directory, PREFIX + os.urandom(6).hex().encode())
