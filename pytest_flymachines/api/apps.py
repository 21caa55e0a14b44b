"""Apps, their addresses, and regions."""

from __future__ import annotations

from typing import Literal

import msgspec

from pytest_flymachines.api.answers import decode, snake_case_keys
from pytest_flymachines.api.caller import Caller, segment
from pytest_flymachines.api.calls import Call
from pytest_flymachines.api.models import App, IpAssignment, Regions
from pytest_flymachines.errors import NotFound, Unauthorized

__all__ = ["AppCalls"]

# A new app is not known everywhere at once; Fly's client waits as long
# (https://github.com/superfly/fly-go/blob/main/flaps/flaps_apps.go).
_NEW_APP_S = 60.0


class _AppList(msgspec.Struct):
    apps: list[App] = []


class _IpList(msgspec.Struct):
    ips: list[IpAssignment] = []


class AppCalls(Caller):
    """Calls on apps."""

    def list_apps(self, org_slug: str) -> list[App]:
        """The apps of an organization; only id, name, network and the counts are filled."""
        call = Call("list_apps", org_slug, repeat_safe=True)
        return decode(
            self._call("GET", "/v1/apps", call, params={"org_slug": org_slug}), _AppList
        ).apps

    def get_app(self, name: str) -> App:
        """One app.

        Raises:
            NotFound: There is none of this name.
            Unauthorized: It belongs to an organization that the token cannot see.
        """
        call = Call("get_app", name, repeat_safe=True)
        return decode(self._call("GET", f"/v1/apps/{segment(name)}", call), App)

    def create_app(self, name: str, org_slug: str, network: str | None = None) -> App:
        """Create an app and wait until it can be read, at most 60 s.

        Args:
            name: Unique on all of Fly: at most 63 characters of a-z, 0-9 and `-`.
            org_slug: The organization that owns it.
            network: Name of a private network of its own; None is the organization's.

        Raises:
            Conflict: The name is taken.
        """
        body = {"name": name, "org_slug": org_slug}
        if network is not None:
            body["network"] = network
        answer = self._call(
            "POST", "/v1/apps", Call("create_app", org_slug), params={"wait": True}, json=body
        )
        app = decode(answer, App)
        return app if app.name else self._wait_for_app(name)

    def _wait_for_app(self, name: str) -> App:
        deadline = self._clock.monotonic() + _NEW_APP_S
        while True:
            try:
                return self.get_app(name)
            except (NotFound, Unauthorized):  # both mean: not known here yet
                if self._clock.monotonic() >= deadline:
                    raise
            self._clock.sleep(1.0)

    def delete_app(self, name: str, *, force: bool = False) -> None:
        """Delete an app with its machines and volumes.

        Args:
            name: The app.
            force: Also while machines are running.
        """
        path = f"/v1/apps/{segment(name)}"
        params = {"force": True} if force else None
        self._call("DELETE", path, Call("delete_app", name), params=params)

    def list_ips(self, app: str) -> list[IpAssignment]:
        """The addresses at which the app's services are reached."""
        path = f"/v1/apps/{segment(app)}/ip_assignments"
        return decode(self._call("GET", path, Call("list_ips", app, repeat_safe=True)), _IpList).ips

    def assign_ip(
        self,
        app: str,
        kind: Literal["v4", "shared_v4", "v6", "private_v6"],
        *,
        region: str | None = None,
        org_slug: str | None = None,
        network: str | None = None,
        service_name: str | None = None,
    ) -> IpAssignment:
        """Give the app an address. A `shared_v4` and a `v6` cost nothing, a `v4` does.

        Args:
            app: The app.
            kind: Which address; `private_v6` is for other apps of the organization.
            region: Where a `v4` is announced; None is everywhere.
            org_slug: For `private_v6`: the organization that may use it.
            network: For `private_v6`: the app's network, if it has one of its own.
            service_name: Service that the address belongs to.
        """
        body = {
            "type": kind,
            "region": region,
            "org_slug": org_slug,
            "network": network,
            "service_name": service_name,
        }
        path = f"/v1/apps/{segment(app)}/ip_assignments"
        chosen = {key: value for key, value in body.items() if value is not None}
        return decode(self._call("POST", path, Call("assign_ip", app), json=chosen), IpAssignment)

    def delete_ip(self, app: str, ip: str) -> None:
        """Take an address away from the app."""
        path = f"/v1/apps/{segment(app)}/ip_assignments/{segment(ip)}"
        self._call("DELETE", path, Call("delete_ip", app))

    def list_regions(self) -> Regions:
        """All regions of Fly's, and which one is nearest."""
        answer = self._call(
            "GET", "/v1/platform/regions", Call("list_regions", "", repeat_safe=True)
        )
        # the API's document has `regions`, its servers send `Regions`
        return decode(answer, Regions, fold=snake_case_keys)
