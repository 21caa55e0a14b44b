"""Leases: exclusive locks on changes to a machine."""

from __future__ import annotations

from pytest_flymachines.api.answers import decode, lease_data
from pytest_flymachines.api.caller import Caller
from pytest_flymachines.api.calls import Call
from pytest_flymachines.api.machines import machine_path
from pytest_flymachines.api.models import Lease
from pytest_flymachines.errors import NotFound

__all__ = ["LeaseCalls"]


class LeaseCalls(Caller):
    """Calls on leases. Reading, waiting and exec need none."""

    def acquire_lease(
        self, app: str, machine_id: str, *, ttl_s: int, description: str = ""
    ) -> Lease:
        """Take a machine's lease.

        Args:
            app: App of the machine.
            machine_id: The machine.
            ttl_s: Seconds until it ends by itself.
            description: Shown to others.

        Raises:
            Conflict: Somebody else holds it; the message says who, and until when.
        """
        return self._acquire(app, machine_id, ttl_s, description, None)

    def refresh_lease(self, app: str, machine_id: str, nonce: str, *, ttl_s: int) -> Lease:
        """Hold a lease for `ttl_s` seconds from now."""
        return self._acquire(app, machine_id, ttl_s, "", nonce)

    def _acquire(
        self, app: str, machine_id: str, ttl_s: int, description: str, nonce: str | None
    ) -> Lease:
        path = f"{machine_path(app, machine_id)}/lease"
        body = {"ttl": ttl_s, "description": description}
        answer = self._call("POST", path, Call("lease", machine_id), json=body, nonce=nonce)
        return decode(answer, Lease, fold=lease_data)

    def find_lease(self, app: str, machine_id: str) -> Lease | None:
        """The lease that somebody holds, or None.

        Raises:
            NotFound: No such machine.
        """
        path = f"{machine_path(app, machine_id)}/lease"
        call = Call("find_lease", machine_id, repeat_safe=True)
        try:
            return decode(self._call("GET", path, call), Lease, fold=lease_data)
        except NotFound as error:
            if "lease not found" in error.message:
                return None
            raise

    def release_lease(self, app: str, machine_id: str, nonce: str) -> None:
        """Give a lease back; one that has ended already is fine."""
        path = f"{machine_path(app, machine_id)}/lease"
        call = Call("release_lease", machine_id, repeat_safe=True)
        try:
            self._call("DELETE", path, call, nonce=nonce)
        except NotFound as error:
            if "lease not found" not in error.message:
                raise
