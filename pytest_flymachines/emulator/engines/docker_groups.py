"""Control groups around a machine's containers, so that its limits are those of all together.

Possible where the daemon makes the groups itself (`cgroupfs`, not systemd) and this process may
make groups beside them: as root, on the daemon's computer. Elsewhere each container has the
limits of the machine for itself.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from pytest_flymachines.emulator.engines.cgroups import (
    Groups,
    MachineGroups,
    own_groups,
    remove_group,
    sweep,
    top_groups,
)

__all__ = ["SharedLimits"]


class SharedLimits:
    """The groups of an engine's machines.

    Args:
        info: What the daemon says of itself.
    """

    def __init__(self, info: dict[str, Any]) -> None:
        self._fits = info.get("CgroupDriver") == "cgroupfs" and os.geteuid() == 0
        self._groups: Groups | None = None
        self._made: dict[Path, MachineGroups] = {}

    def around(self, directory: Path, machine_id: str, memory_mb: int, swap_mb: int) -> str | None:
        """A group for the containers of one boot of a machine, limited.

        Args:
            directory: The machine's.
            machine_id: Of the machine.
            memory_mb: What all of its containers may use together.
            swap_mb: Likewise, on top of that.

        Returns:
            As Docker's `cgroup_parent`; None where it cannot be had.
        """
        self.remove(directory)
        if self._groups is None:
            if self._fits:
                sweep()  # what killed emulators have left
            self._groups = top_groups() if self._fits else Groups()
        if not self._groups.limits:
            return None
        groups = self._groups.of(machine_id)
        plan = groups.plan(memory_mb, swap_mb)
        self._made[directory] = groups
        try:
            for path in groups.paths:
                Path(path).mkdir()
            for file, value in plan["limits"]:  # type: ignore[attr-defined]  # pairs, by `plan`
                Path(file).write_text(value)
        except OSError:
            self.remove(directory)
            return None
        group = Path(groups.paths[0])
        return f"/{group.parent.name}/{group.name}"

    def remove(self, directory: Path) -> None:
        """Remove the group of a machine; its containers must have ended."""
        if groups := self._made.pop(directory, None):
            group = Path(groups.paths[0])
            _remove_everywhere(Path(group.parent.name, group.name))

    def close(self) -> None:
        """Remove all of them."""
        for directory in list(self._made):
            self.remove(directory)
        if self._groups is not None and self._groups.parents:
            _remove_everywhere(Path(Path(self._groups.parents[0]).name))


def _remove_everywhere(below: Path) -> None:
    """In each hierarchy: the daemon makes a group's parents in all of version 1."""
    for own in own_groups().values():
        for base in (own, *own.parents):
            with contextlib.suppress(OSError):
                # podman leaves groups of its own within
                for group in sorted((base / below).glob("**/"), reverse=True):
                    remove_group(group)
