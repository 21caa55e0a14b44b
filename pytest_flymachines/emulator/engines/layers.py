"""What of this computer a machine sees, and how it can write on it.

A machine's `/` is an overlay over a base that all machines share: a copy of what anybody may
read in /etc, and new, empty directories. On it, more overlays show this computer's programs
(/usr), what it has installed besides (/opt, /srv), and the data of its package managers. Home
directories, /run, /tmp, the rest of /var, and whatever else is mounted on this computer do
not appear.

Between this computer's files and the machine's own lies a thin layer; see `thin`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from pytest_flymachines.emulator.engines import thin
from pytest_flymachines.emulator.engines.base_layer import Plan, fingerprint, make_base
from pytest_flymachines.emulator.engines.kept import Kept, keep

__all__ = ["Overlay", "SystemTree", "survey"]

_SYSTEM = ("bin", "lib", "lib32", "lib64", "libx32", "sbin", "usr", "opt", "srv")
_PACKAGE_DATA = ("lib/apk", "lib/apt", "lib/dnf", "lib/dpkg", "lib/pacman", "lib/rpm")


@dataclass(frozen=True)
class Overlay:
    """One overlay mount: `lower` on this computer, from the bottom up, seen at `path`."""

    path: str
    lower: tuple[Path, ...]


@dataclass(frozen=True)
class SystemTree:
    """How a machine's file system is put together.

    Attributes:
        overlays: To be mounted in this order; the first is `/`.
        kept: What is shared with other processes; to be closed when no machine needs it.
    """

    overlays: list[Overlay]
    kept: list[Kept] = field(default_factory=list)


def survey(directory: Path) -> SystemTree:
    """Look at this computer, and make the base and the thin layers.

    Args:
        directory: For what is not shared with other processes.
    """
    plan = Plan()
    mounts = _mount_points()
    system = [Path("/", name) for name in _SYSTEM]
    for path in [*system, *(Path("/var", name) for name in _PACKAGE_DATA)]:
        if path.is_symlink() or path.is_dir():
            _add(plan, path, mounts)
    base = keep("base", fingerprint(plan), lambda new: make_base(new, plan), directory)
    layers, kept = thin.make(plan.shown, directory)
    shown = [Overlay(str(path), (path, layers[path])) for path in plan.shown]
    return SystemTree([Overlay("/", (base.path,)), *shown], [base, *kept])


def _add(plan: Plan, path: Path, mounts: set[Path]) -> None:
    """Plan an overlay for a directory, or for each of its parts if one has a mount below it.

    The kernel refuses an ordinary user's overlay over a directory with mounts below it.
    """
    if path.is_symlink():
        plan.links[path] = str(path.readlink())
    elif path.is_dir() and os.access(path, os.R_OK | os.X_OK):
        plan.places.append(path)
        if any(path in mount.parents for mount in mounts):
            for child in sorted(path.iterdir()):
                if child not in mounts:
                    _add(plan, child, mounts)
        elif any(path.iterdir()):
            plan.shown.append(path)


def _mount_points() -> set[Path]:
    lines = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape").splitlines()
    # Spaces and the like in a path are octal escapes there.
    paths = (line.split()[4].encode("utf-8", "surrogateescape") for line in lines)
    return {Path(os.fsdecode(path.decode("unicode_escape").encode("latin-1"))) for path in paths}
