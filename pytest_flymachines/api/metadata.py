"""A machine's metadata: changed without a new version and without a restart."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from pytest_flymachines.api.answers import decode
from pytest_flymachines.api.caller import Caller, segment
from pytest_flymachines.api.calls import Call
from pytest_flymachines.api.machines import machine_path

__all__ = ["MetadataCalls"]


class _Value(msgspec.Struct):
    value: str = ""


class MetadataCalls(Caller):
    """Calls on metadata."""

    def get_metadata(self, app: str, machine_id: str) -> dict[str, str]:
        """All keys and values."""
        path = f"{machine_path(app, machine_id)}/metadata"
        call = Call("get_metadata", machine_id, repeat_safe=True)
        return decode(self._call("GET", path, call), dict[str, str])

    def get_metadata_value(self, app: str, machine_id: str, key: str) -> str:
        """One value.

        Raises:
            NotFound: No such key, or machine.
        """
        path = f"{machine_path(app, machine_id)}/metadata/{segment(key)}"
        call = Call("get_metadata_value", machine_id, repeat_safe=True)
        return decode(self._call("GET", path, call), _Value).value

    def set_metadata(self, app: str, machine_id: str, key: str, value: str) -> None:
        """Set one key."""
        path = f"{machine_path(app, machine_id)}/metadata/{segment(key)}"
        call = Call("set_metadata", machine_id, repeat_safe=True)
        self._call("POST", path, call, json={"value": value})

    def update_metadata(
        self,
        app: str,
        machine_id: str,
        changes: Mapping[str, str | None],
        *,
        machine_version: str | None = None,
    ) -> None:
        """Set several keys at once; None removes a key, others stay.

        Args:
            app: App of the machine.
            machine_id: The machine.
            changes: Keys and their new values.
            machine_version: Fail with `Conflict` unless this is still the `instance_id`.
        """
        body: dict[str, object] = {"metadata": changes}
        if machine_version is not None:
            body["machine_version"] = machine_version
        path = f"{machine_path(app, machine_id)}/metadata"
        call = Call("update_metadata", machine_id, repeat_safe=True)
        self._call("PATCH", path, call, json=body)

    def delete_metadata(self, app: str, machine_id: str, key: str) -> None:
        """Remove one key."""
        path = f"{machine_path(app, machine_id)}/metadata/{segment(key)}"
        self._call("DELETE", path, Call("delete_metadata", machine_id, repeat_safe=True))
