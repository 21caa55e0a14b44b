"""What a fuzzed request needs to get past 404: an app, machines in each state, a volume.

Generated requests name them by placeholders that begin with `the-`; they are there again for the
next request, whatever the last one did to them.
"""

from __future__ import annotations

import contextlib
from typing import Any

import httpx

from pytest_flymachines.emulator.launch import EmulatorProcess

__all__ = ["APPS", "MACHINES", "VOLUMES", "World"]

JSON = dict[str, Any]

APP = "fuzz"
APPS = [*(f"the-app-{number}" for number in range(6)), "unknown", "the-doomed"]
MACHINES = ["the-started", "the-started-2", "the-stopped", "the-suspended", "unknown"]
VOLUMES = ["the-volume", "the-volume-2", "the-mounted", "unknown"]
SLEEP: JSON = {"image": "debian:stable-slim", "init": {"exec": ["sleep", "inf"]}}
SPARE_MACHINES = 40


class World:
    """The things that requests are about, in one emulator."""

    def __init__(self, emulator: EmulatorProcess) -> None:
        headers = {"authorization": f"Bearer {emulator.token}"}
        self.http = httpx.Client(
            base_url=emulator.api_url, headers=headers, timeout=60, trust_env=False
        )
        self._ids: dict[str, str] = {}

    def resolve(self, value: Any) -> Any:
        """Put ids in the place of placeholders, in a value of any shape."""
        if isinstance(value, dict):
            return {key: self.resolve(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.resolve(item) for item in value]
        if not isinstance(value, str) or not value.startswith("the-"):
            return value
        if value.startswith("the-app"):
            return self._app(APP)
        if value == "the-doomed":
            return self._app("doomed")
        if value in MACHINES:
            return self._machine(value)
        return self._volume(value) if value in VOLUMES else value

    def tidy(self) -> None:
        """Destroy the machines that fuzzed requests have made, once there are many."""
        machines = self._get(f"/v1/apps/{APP}/machines") or []
        kept = set(self._ids.values())
        spare = [machine["id"] for machine in machines if machine["id"] not in kept]
        if len(spare) > SPARE_MACHINES:
            for machine_id in spare:
                self.http.delete(f"/v1/apps/{APP}/machines/{machine_id}?force=true")

    def _app(self, name: str) -> str:
        if self._get(f"/v1/apps/{name}") is None:
            body = {"name": name, "org_slug": "personal"}
            self.http.post("/v1/apps", json=body)
        return name

    def _machine(self, placeholder: str) -> str:
        wanted = placeholder.split("-")[1]
        base = f"/v1/apps/{self._app(APP)}/machines"
        known = self._ids.get(placeholder, "")
        shown = self._get(f"{base}/{known}") if known else None
        lease = shown and self.http.get(f"{base}/{known}/lease").status_code == 200
        if not shown or lease or shown["state"] != wanted or shown["cordoned"]:
            if known:
                self._destroy(base, known)
            known = self._make(base, wanted)
            self._ids[placeholder] = known
        return known

    def _make(self, base: str, wanted: str) -> str:
        answer = self.http.post(base, json={"config": SLEEP, "skip_launch": wanted == "stopped"})
        answer.raise_for_status()
        machine_id: str = answer.json()["id"]
        path = f"{base}/{machine_id}"
        if wanted == "suspended":
            self.http.get(f"{path}/wait").raise_for_status()
            self.http.post(f"{path}/suspend").raise_for_status()
        self.http.get(f"{path}/wait", params={"state": wanted}).raise_for_status()
        return machine_id

    def _destroy(self, base: str, machine_id: str) -> None:
        # A leased one goes when its lease has run out; there is room for it until then.
        with contextlib.suppress(httpx.HTTPError):
            self.http.delete(f"{base}/{machine_id}?force=true")

    def _volume(self, placeholder: str) -> str:
        base = f"/v1/apps/{self._app(APP)}/volumes"
        known = self._ids.get(placeholder)
        shown = self._get(f"{base}/{known}") if known else None
        if not known or not shown or shown["state"] != "created":
            known = str(self.http.post(base, json={"name": "data", "region": "ord"}).json()["id"])
            self._ids[placeholder] = known
        return known

    def _get(self, path: str) -> Any:
        answer = self.http.get(path)
        return answer.json() if answer.status_code == 200 else None

    def close(self) -> None:
        """Let go of the connections."""
        self.http.close()
