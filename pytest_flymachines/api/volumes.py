"""Volumes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from pytest_flymachines.api.answers import decode
from pytest_flymachines.api.caller import Caller, segment
from pytest_flymachines.api.calls import Call
from pytest_flymachines.api.models import Volume

__all__ = ["VolumeCalls"]

# On their way out; Fly's client hides the same
# (https://github.com/superfly/fly-go/blob/main/flaps/flaps_volumes.go).
_DYING = frozenset(
    {
        "scheduling_destroy",
        "fork_cleanup",
        "waiting_for_detach",
        "pending_destroy",
        "destroying",
        "destroyed",
    }
)


class _Extended(msgspec.Struct):
    volume: Volume
    needs_restart: bool = False


class VolumeCalls(Caller):
    """Calls on volumes. Destroying a machine never deletes its volume."""

    def create_volume(
        self,
        app: str,
        name: str,
        *,
        region: str,
        size_gb: int | None = None,
        encrypted: bool = True,
        compute: Mapping[str, Any] | None = None,
        compute_image: str | None = None,
        snapshot_id: str | None = None,
        source_volume_id: str | None = None,
        snapshot_retention_days: int | None = None,
        auto_backup: bool | None = None,
        require_unique_zone: bool | None = None,
        fstype: str | None = None,
    ) -> Volume:
        """Create a volume; a create is never sent twice, as names are not unique.

        Args:
            app: The app.
            name: Lower case letters, digits and `_`, at most 30.
            region: Code of the region; the machine that mounts it must be created there.
            size_gb: 1 to 500; None is 3.
            encrypted: Whether its content is encrypted at rest.
            compute: `guest` of the machine to come, so that it finds room beside the volume.
            compute_image: Image of that machine.
            snapshot_id: Snapshot to restore.
            source_volume_id: Volume to copy.
            snapshot_retention_days: 1 to 60; None is 5.
            auto_backup: Daily snapshots; None is yes.
            require_unique_zone: On other hardware than volumes of the same name; None is yes.
            fstype: `ext4` (None) or `raw`.

        Raises:
            CapacityError: No room in the region.
        """
        body = {
            "name": name,
            "region": region,
            "size_gb": size_gb,
            "encrypted": encrypted,
            "compute": compute,
            "compute_image": compute_image,
            "snapshot_id": snapshot_id,
            "source_volume_id": source_volume_id,
            "snapshot_retention": snapshot_retention_days,
            "auto_backup_enabled": auto_backup,
            "require_unique_zone": require_unique_zone,
            "fstype": fstype,
        }
        chosen = {key: value for key, value in body.items() if value is not None}
        path = f"/v1/apps/{segment(app)}/volumes"
        return decode(self._call("POST", path, Call("create_volume", app), json=chosen), Volume)

    def get_volume(self, app: str, volume_id: str) -> Volume:
        """One volume, also one that is being destroyed."""
        call = Call("get_volume", volume_id, repeat_safe=True)
        return decode(self._call("GET", _path(app, volume_id), call), Volume)

    def list_volumes(self, app: str, *, include_dying: bool = False) -> list[Volume]:
        """The volumes of an app; with `include_dying`, those on their way out too."""
        path = f"/v1/apps/{segment(app)}/volumes"
        call = Call("list_volumes", app, repeat_safe=True)
        volumes = decode(self._call("GET", path, call), list[Volume])
        return [volume for volume in volumes if include_dying or volume.state not in _DYING]

    def extend_volume(self, app: str, volume_id: str, size_gb: int) -> tuple[Volume, bool]:
        """Make a volume larger; the bool says whether its machine must restart to see that."""
        path = f"{_path(app, volume_id)}/extend"
        call = Call("extend_volume", volume_id, repeat_safe=True)
        answer = decode(self._call("PUT", path, call, json={"size_gb": size_gb}), _Extended)
        return answer.volume, answer.needs_restart

    def delete_volume(self, app: str, volume_id: str) -> None:
        """Delete a volume.

        Raises:
            Conflict: A machine holds it; the bond outlasts a machine's end by up to a minute.
            NotFound: No such volume, or an earlier attempt whose answer was lost deleted it.
        """
        call = Call("delete_volume", volume_id, repeat_safe=True)
        self._call("DELETE", _path(app, volume_id), call)


def _path(app: str, volume_id: str) -> str:
    return f"/v1/apps/{segment(app)}/volumes/{segment(volume_id)}"
