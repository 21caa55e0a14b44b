"""Control groups for machines: which of this computer's hierarchies let us limit and freeze.

Version 2 limits and freezes where a group of ours may be made and the controllers are enabled
in its parent: as root, or in a group that systemd delegated to the user. Version 1 limits as
root; its freezer is not used, since frozen processes cannot be killed there. Where both
exist, as on computers that boot with version 1 controllers, limits come from version 1 and
the freezer from version 2.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

__all__ = [
    "NO_LIMITS",
    "Groups",
    "MachineGroups",
    "find",
    "own_groups",
    "pids_limit",
    "remove_group",
    "sweep",
    "top_groups",
]

_CONTROLLERS = ("memory", "pids")
_PREFIX = "pytest-flymachines-"
_FREEZE_TIMEOUT_S = 10.0


NO_LIMITS = (
    "no control group of this user: memory is limited for each process, not for the machine, and "
    "running out of it is not reported as oom_killed"
)
"""What a user should know where `Groups.limits` is false."""


def pids_limit(memory_mb: int) -> int:
    """How many processes and threads a machine may have.

    Half of what Linux itself allows on a computer of this much memory (kernel/fork.c,
    `set_max_threads`), but enough for a build on the smallest.
    """
    return min(max(memory_mb * 4, 1024), 16384)


@dataclass(frozen=True)
class Groups:
    """Parents of the machines' groups; None where this computer does not let us.

    Attributes:
        unified: In the version 2 hierarchy.
        unified_limits: Memory and pids are limited there.
        legacy: By controller, in version 1 hierarchies.
    """

    unified: Path | None = None
    unified_limits: bool = False
    legacy: dict[str, Path] = field(default_factory=dict)

    @property
    def limits(self) -> bool:
        """Whether memory and the number of processes are limited."""
        return self.unified_limits or set(self.legacy) == set(_CONTROLLERS)

    @property
    def parents(self) -> list[str]:
        """What is to be removed when the last machine is gone."""
        return [str(path) for path in (self.unified, *self.legacy.values()) if path]

    def of(self, machine_id: str) -> MachineGroups:
        """The groups of one boot of one machine; nothing is made yet."""
        name = f"{machine_id}-{secrets.token_hex(3)}"
        return MachineGroups(
            unified=self.unified / name if self.unified else None,
            unified_limits=self.unified_limits,
            legacy={controller: path / name for controller, path in self.legacy.items()},
        )


@dataclass(frozen=True)
class MachineGroups:
    """The groups of one machine; the supervisor makes them, the spawner removes them."""

    unified: Path | None
    unified_limits: bool
    legacy: dict[str, Path]

    @property
    def limits(self) -> bool:
        """Whether memory and the number of processes are limited."""
        return self.unified_limits or set(self.legacy) == set(_CONTROLLERS)

    @property
    def paths(self) -> list[str]:
        """Every group of the machine."""
        return [str(path) for path in (self.unified, *self.legacy.values()) if path]

    def plan(self, memory_mb: int, swap_mb: int = 0, *, made: bool = False) -> dict[str, object]:
        """What the supervisor is to do: `walls.Cgroup.create` takes it.

        With `made`, the groups and their limits are there already. Swap is this computer's, if it
        has any, and comes on top of the memory.

        `directories` to make, `limits` to write, `tasks` files through which a process moves
        itself in, `into`: a group to be born in, `oom`: where kills are counted.
        """
        memory, pids = str(memory_mb * 2**20), str(pids_limit(memory_mb))
        both = str((memory_mb + swap_mb) * 2**20)
        limits: list[tuple[str, str]] = []
        oom: list[str] = []
        if self.unified and self.unified_limits:
            limits += _files(self.unified, {"memory.max": memory, "pids.max": pids})
            if (self.unified.parent / "memory.swap.max").exists():
                limits += _files(self.unified, {"memory.swap.max": str(swap_mb * 2**20)})
            oom.append(str(self.unified / "memory.events"))
        if path := self.legacy.get("memory"):
            limits += _files(path, {"memory.limit_in_bytes": memory})
            if (path.parent / "memory.memsw.limit_in_bytes").exists():
                limits += _files(path, {"memory.memsw.limit_in_bytes": both})
            oom.append(str(path / "memory.oom_control"))
        if path := self.legacy.get("pids"):
            limits += _files(path, {"pids.max": pids})
        return {
            "directories": [] if made else self.paths,
            "limits": [] if made else limits,
            "tasks": [str(path / "tasks") for path in self.legacy.values()],
            "into": str(self.unified) if self.unified else None,
            "oom": oom,
        }

    def set_frozen(self, *, frozen: bool) -> None:
        """Freeze or thaw every process; returns when it is done.

        Raises:
            OSError: The kernel refused, or needed too long.
        """
        assert self.unified is not None
        (self.unified / "cgroup.freeze").write_text("1" if frozen else "0")
        wanted = f"frozen {int(frozen)}"
        deadline = time.monotonic() + _FREEZE_TIMEOUT_S
        while wanted not in (self.unified / "cgroup.events").read_text().splitlines():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.unified} did not become {wanted!r}")
            time.sleep(0.001)

    def memory_used_bytes(self) -> int | None:
        """What the processes hold, without page cache that could be dropped at any time."""
        with contextlib.suppress(OSError, ValueError):
            if self.unified and self.unified_limits:
                used = int((self.unified / "memory.current").read_text())
                return used - _statistic(self.unified, "inactive_file")
            if path := self.legacy.get("memory"):
                used = int((path / "memory.usage_in_bytes").read_text())
                return used - _statistic(path, "total_inactive_file")
        return None


def find() -> Groups:
    """Make the parent groups of an engine, wherever this computer lets us."""
    own = own_groups()
    name = f"{_PREFIX}{os.getpid()}-{secrets.token_hex(3)}"
    legacy: dict[str, Path] = {}
    for controller in _CONTROLLERS:
        if path := own.get(controller):
            with contextlib.suppress(OSError):
                (path / name).mkdir()
                legacy[controller] = path / name
    unified, unified_limits = None, False
    if "" in own:
        unified, unified_limits = _unified_parent(own[""], name, wants_limits=not legacy)
    return Groups(unified, unified_limits, legacy)


def top_groups() -> Groups:
    """Make parent groups that limit, with one path below the top of each hierarchy.

    Those of `find` are below our own groups, whose paths may differ.
    """
    name = f"{_PREFIX}{os.getpid()}-{secrets.token_hex(3)}"
    tops = {controller: _top(path) for controller, path in own_groups().items()}
    made: dict[str, Path] = {}
    for controller in _CONTROLLERS:
        with contextlib.suppress(OSError):
            if controller in tops:
                made[controller] = tops[controller] / name
                made[controller].mkdir()
    if not made and "" in tops:
        group = tops[""] / name
        with contextlib.suppress(OSError):
            group.mkdir()
            if _controls(tops[""], group):
                return Groups(unified=group, unified_limits=True)
            remove_group(group)
    return Groups(legacy=made)


def _top(group: Path) -> Path:
    while (group.parent / "cgroup.procs").exists():
        group = group.parent
    return group


def sweep() -> None:
    """Remove the groups of engines whose process is gone; only after a kill of everything."""
    for path in own_groups().values():
        for base in (path, *path.parents):
            if not (base / "cgroup.procs").exists():
                break
            for found in base.glob(f"{_PREFIX}*"):
                owner = found.name.removeprefix(_PREFIX).partition("-")[0]
                if owner.isdigit() and not Path(f"/proc/{owner}").exists():
                    for group in sorted(found.glob("**/"), reverse=True):
                        with contextlib.suppress(OSError):
                            group.rmdir()


def _unified_parent(own: Path, name: str, *, wants_limits: bool) -> tuple[Path | None, bool]:
    """The nearest group, from our own upwards, below which machines can live."""
    freezing_only: Path | None = None
    for base in (own, *own.parents):
        if not (base / "cgroup.procs").exists():
            break
        group = base / name
        if not _usable(group):
            continue
        if _controls(base, group):
            if freezing_only:
                freezing_only.rmdir()
            return group, True
        if freezing_only is None:
            freezing_only = group
        else:
            group.rmdir()
        if not wants_limits:
            break
    return freezing_only, False


def _usable(group: Path) -> bool:
    """Make a group, and see whether a process of ours may move into it."""
    try:
        group.mkdir()
    except OSError:
        return False
    command = ["sh", "-c", 'echo 0 > "$1/cgroup.procs"', "sh", str(group)]
    moved = subprocess.run(command, capture_output=True, check=False).returncode == 0
    if not (moved and (group / "cgroup.freeze").exists()):
        remove_group(group)
        return False
    return True


def _controls(base: Path, group: Path) -> bool:
    """Enable the controllers for the machines' groups, if they can be had."""
    wanted = " ".join(f"+{controller}" for controller in _CONTROLLERS)
    if set(_CONTROLLERS) <= set((base / "cgroup.controllers").read_text().split()):
        for parent in (base, group):
            with contextlib.suppress(OSError):
                (parent / "cgroup.subtree_control").write_text(wanted)
    return set(_CONTROLLERS) <= set((group / "cgroup.subtree_control").read_text().split())


def remove_group(group: Path) -> None:
    """Remove a group, once its last process has gone; what is still used then stays."""
    for _ in range(100):
        try:
            group.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.005)
        else:
            return


def own_groups() -> dict[str, Path]:
    """Directory of our own group by controller; the version 2 hierarchy is `""`."""
    mounts: dict[str, tuple[str, Path]] = {}
    for line in _lines("/proc/self/mountinfo"):
        left, _, right = line.partition(" - ")
        root, mountpoint = left.split()[3:5]
        kind, _, options = right.split()[:3]
        if kind == "cgroup2":
            mounts.setdefault("", (root, Path(mountpoint)))
        elif kind == "cgroup":
            for option in options.split(","):
                mounts.setdefault(option, (root, Path(mountpoint)))
    own: dict[str, Path] = {}
    for line in _lines("/proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            if controller in mounts:
                top, directory = mounts[controller]
                with contextlib.suppress(ValueError):
                    own[controller] = directory / Path(path).relative_to(top)
    return own


def _lines(file: str) -> list[str]:
    """Of a file of /proc, in which names may be any bytes."""
    return Path(file).read_text("utf-8", "surrogateescape").splitlines()


def _files(group: Path, values: dict[str, str]) -> Iterable[tuple[str, str]]:
    return [(str(group / name), value) for name, value in values.items()]


def _statistic(group: Path, name: str) -> int:
    for line in (group / "memory.stat").read_text().splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0
