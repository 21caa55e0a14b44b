"""Volumes of sandboxes: made with their machine, and deleted after it."""

from __future__ import annotations

from pytest_flymachines._clock import Clock, SystemClock
from pytest_flymachines.api import Machine, MachinesClient
from pytest_flymachines.errors import Conflict, NotFound

__all__ = ["delete_volume", "volumes_of"]

# Seen: three of six deletes right after the machine's end were refused, for up to a minute.
BOND_S = 60.0


def delete_volume(
    client: MachinesClient,
    app: str,
    volume_id: str,
    *,
    within_s: float = BOND_S,
    clock: Clock | None = None,
) -> None:
    """Delete a volume, trying for a while: its bond with a destroyed machine lingers.

    Raises:
        Conflict: It is still bound to a machine.
        ApiError: The API refused.
    """
    clock = clock or SystemClock()
    deadline = clock.monotonic() + within_s
    while True:
        try:
            client.delete_volume(app, volume_id)
        except NotFound:
            return
        except Conflict:
            if clock.monotonic() >= deadline:
                raise
            clock.sleep(2)
        else:
            return


def volumes_of(machine: Machine) -> list[str]:
    """Ids of the volumes that a machine mounts."""
    mounts = (machine.config or {}).get("mounts") or []
    return [str(mount["volume"]) for mount in mounts if mount.get("volume")]
