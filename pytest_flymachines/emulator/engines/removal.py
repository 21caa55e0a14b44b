"""Removing what a machine has left on disk."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from pathlib import Path

__all__ = ["remove_tree"]


def remove_tree(directory: Path) -> None:
    """Remove a tree, also where a machine or the kernel left directories without permissions.

    What a machine without a namespace has mounted in there, as private workspaces are, is detached.

    Raises:
        PermissionError: Something in it belongs to somebody else.
    """
    for mount in reversed(_mounts_below(directory)):
        subprocess.run(["umount", "-l", mount], capture_output=True, check=False)
    with contextlib.suppress(FileNotFoundError):
        try:
            shutil.rmtree(directory)
        except PermissionError:
            for path, names, _ in os.walk(directory):
                for child in (Path(path, name) for name in names):
                    with contextlib.suppress(PermissionError):
                        if not child.is_symlink():
                            child.chmod(0o700)
            shutil.rmtree(directory)


def _mounts_below(directory: Path) -> list[bytes]:
    """Where something is mounted in a directory, in the order of mounting."""
    below = os.fsencode(directory.resolve()) + b"/"
    fields = (
        line.split(b" ")[4] for line in Path("/proc/self/mountinfo").read_bytes().splitlines()
    )
    # the kernel writes a blank as \040
    places = (re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m[1], 8)]), field) for field in fields)
    return [place for place in places if place.startswith(below)]
