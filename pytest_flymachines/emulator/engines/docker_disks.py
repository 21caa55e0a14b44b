"""Disks as volumes of a daemon: it mounts their devices while a container has them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytest_flymachines.emulator.engines.base import GuestMount
from pytest_flymachines.emulator.engines.docker_client import OWNER

__all__ = ["binds", "mountpoint"]


def binds(api: Any, label: str, mounts: Sequence[GuestMount]) -> dict[str, dict[str, str]]:
    """The mounts of a container, as the daemon wants them; makes what volumes they need.

    Args:
        api: The daemon's client.
        label: Of the engine that owns the volumes.
        mounts: Of a machine.
    """
    found = {}
    for mount in mounts:
        source = str(mount.source)
        if mount.device:
            source = _name(label, mount)
            options = {"type": "ext4", "device": mount.device, "o": "discard"}
            # One that is there already is of the same name, and so of the same device.
            api.create_volume(source, driver="local", driver_opts=options, labels={OWNER: label})
        found[source] = {"bind": mount.path, "mode": "rw"}
    return found


def mountpoint(api: Any, label: str, mount: GuestMount) -> Path:
    """Where the daemon mounts a device, seen from the daemon."""
    return Path(api.inspect_volume(_name(label, mount))["Mountpoint"])


def _name(label: str, mount: GuestMount) -> str:
    return f"pytest-flymachines-{label}-{mount.source.name}-{Path(mount.device).name}"
