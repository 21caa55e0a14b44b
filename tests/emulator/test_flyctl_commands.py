"""flyctl's commands on machines, leases and volumes: every request of each, in its order.

What flyctl sends is what superfly/flyctl and superfly/fly-go have in their code: the query of
`restart`, the nonce headers, `timeout: "0s"` of `stop`, every key of a volume as null.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.emulator.conftest import App, Fly, Machine
from tests.emulator.fidelity import shows
from tests.emulator.test_flyctl import (
    ALLOCATE,
    APP_BASIC,
    APP_COMPACT,
    IMAGE,
    IPS,
    MACHINE,
    VOLUME,
    ask,
)

NONCE = "fly-machine-lease-nonce"
KEYS = ("compute", "compute_image", "snapshot_id", "source_volume_id", "snapshot_retention")


class Flyctl:
    """flyctl with `-a APP`, one method for each command."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.fly = app.fly

    @contextmanager
    def leased(self, machine: Machine) -> Iterator[dict[str, str]]:
        """Around most changes: the machine, a lease of two minutes, and its end."""
        shown = machine.get()
        lease = self.fly.ok("POST", f"{machine.path}/lease?ttl=120")["data"]
        if lease["version"] != shown["instance_id"]:
            machine.get()
        headers = {NONCE: lease["nonce"]}
        yield headers
        answer = self.fly("DELETE", f"{machine.path}/lease", headers=headers)
        assert answer.status_code == 200 or " lease not found" in answer.text, answer.text

    def act(self, machine: Machine, action: str, state: str) -> None:
        """`machine start|stop|suspend ID --wait-timeout 60`."""
        body = {"id": machine.id, "timeout": "0s"} if action == "stop" else None
        with self.leased(machine) as headers:
            answer = machine.post(action, body, headers=headers)
            assert answer.get("status") != "error"
            machine.get()
            self.wait_for(machine, state)

    def wait_for(self, machine: Machine, state: str, **query: Any) -> None:
        """One poll; fly-go puts the keys in alphabetical order."""
        params = dict(sorted({"state": state, "timeout": 60, **query}.items()))
        self.fly.ok("GET", f"{machine.path}/wait", params=params)

    def restart(self, machine: Machine, **query: str) -> None:
        """`machine restart ID [--signal S] [--time N] [--force]`."""
        with self.leased(machine) as headers:
            params = {"force_stop": "false", **query}
            machine.post("restart", params=params, headers=headers)
            self.wait_for(machine, "started")
            assert all(check["status"] == "passing" for check in machine.get().get("checks", ()))

    def kill(self, machine: Machine) -> None:
        """`machine kill ID`."""
        machine.get()
        machine.post("signal", {"signal": 9})

    def wait(self, machine: Machine, state: str = "settled") -> str:
        """`machine wait ID`; what it prints in the end."""
        machine.get()
        self.wait_for(machine, state)
        return machine.state

    def update(self, machine: Machine, ref: str, **config: Any) -> str:
        """`machine update ID -y --image REF`; the new version."""
        with self.leased(machine) as headers:
            ask(self.fly, APP_COMPACT, appName=self.app.name)
            found = ask(self.fly, IMAGE, appName=self.app.name, imageRef=ref)["app"]["image"]
            shown = machine.get()
            body = {
                "id": machine.id,
                "name": shown["name"],
                "region": shown["region"],
                "config": {**shown["config"], "image": found["ref"], **config},
                "skip_launch": False,
                "skip_secrets": False,
            }
            version = str(self.fly.ok("POST", machine.path, body, headers=headers)["instance_id"])
            self.wait_for(machine, "started", version=version)
            machine.get()
        return version

    def cordon(self, machine: Machine, action: str) -> bool:
        """`machine cordon|uncordon ID`; what `machine status` then shows."""
        with self.leased(machine) as headers:
            machine.post(action, headers=headers)
        return bool(machine.get()["cordoned"])

    def destroy(self, machine: Machine, *, force: bool) -> None:
        """`machine destroy ID [--force]`."""
        with self.leased(machine) as headers:
            ask(self.fly, APP_COMPACT, appName=self.app.name)
            kill = "true" if force else "false"
            self.fly.ok("DELETE", f"{machine.path}?kill={kill}", headers=headers)

    def create_volume(self, name: str, region: str, **given: Any) -> dict[str, Any]:
        """`volumes create NAME -r REGION -y`."""
        ask(self.fly, APP_BASIC, appName=self.app.name)
        regions = self.fly.ok("GET", "/v1/platform/regions")["Regions"]
        assert region in {item["code"] for item in regions}
        body = {
            "name": name,
            "region": region,
            "size_gb": 1,
            "encrypted": True,
            "require_unique_zone": True,
            "auto_backup_enabled": True,
            **dict.fromkeys(KEYS),
            **given,
        }
        made: dict[str, Any] = self.fly.ok("POST", f"{self.app.path}/volumes", body)
        return made


@pytest.fixture
def flyctl(app: App) -> Flyctl:
    return Flyctl(app)


@pytest.fixture
def machine(app: App) -> Machine:
    return app.create("sleep", "inf")


@shows("flyctl", "`machine list`, `machine status` with and without `-a`", "flyctl")
def test_list_and_status(app: App, fly: Fly, machine: Machine) -> None:
    [shown] = fly.ok("GET", f"{app.machines}?")
    assert shown["id"] == machine.id
    found = ask(fly, MACHINE, machineId=machine.id)["gqlmachine"]
    assert found["app"]["name"] == app.name
    shown = machine.get()
    assert shown["config"]["guest"]["cpu_kind"] == "shared"
    assert [event["type"] for event in shown["events"]] == ["start", "launch"]


@shows("flyctl", "`machine stop`, `start`, `suspend` with `--wait-timeout`", "flyctl")
def test_actions(flyctl: Flyctl, machine: Machine) -> None:
    for action, state in (
        ("stop", "stopped"),
        ("start", "started"),
        ("suspend", "suspended"),
        ("start", "started"),
    ):
        flyctl.act(machine, action, state)
        assert machine.state == state


@shows("flyctl", "`machine restart`, with `--force`, `--signal` and `--time`", "flyctl")
def test_restart(flyctl: Flyctl, machine: Machine) -> None:
    version = machine.get()["version"]
    for query in ({}, {"force_stop": "true"}, {"signal": "SIGTERM", "timeout": "10s"}):
        newest = machine.events()[0]["id"]
        flyctl.restart(machine, **query)
        machine.wait("started", from_event_id=newest)
    codes = [item["exit_event"]["exit_code"] for item in machine.exits()]
    assert codes == [143, 137, 130]
    assert machine.get()["version"] == version


@shows("flyctl", "`machine kill`, `machine wait`", "flyctl")
def test_kill_and_wait(flyctl: Flyctl, app: App) -> None:
    machine = app.create("sleep", "inf", restart={"policy": "no"})
    assert flyctl.wait(machine) == "started"
    flyctl.kill(machine)
    assert flyctl.wait(machine, "stopped") == "stopped"
    assert machine.exits()[0]["exit_event"]["exit_code"] == 137


@shows(
    "flyctl", "`machine update`: lease, image, update with nonce, wait for its version", "flyctl"
)
def test_update(flyctl: Flyctl, machine: Machine) -> None:
    before = machine.get()["version"]
    version = flyctl.update(machine, "docker.io/library/python:3.12-slim", env={"NEW": "1"})
    assert version != before
    shown = machine.get()
    assert shown["image_ref"]["repository"] == "library/python"
    assert shown["config"]["init"]["exec"] == ["sleep", "inf"]
    assert "NEW=1" in machine.exec("env")["stdout"]


@shows("flyctl", "`machine cordon`, `machine uncordon`", "flyctl")
def test_cordon(flyctl: Flyctl, machine: Machine) -> None:
    assert flyctl.cordon(machine, "cordon") is True
    assert flyctl.cordon(machine, "uncordon") is False


@shows("flyctl", "`machine destroy`, whose lease is gone when flyctl gives it back", "flyctl")
@pytest.mark.parametrize("force", [False, True])
def test_destroy(flyctl: Flyctl, machine: Machine, force: bool) -> None:
    if not force:
        flyctl.act(machine, "stop", "stopped")
    flyctl.destroy(machine, force=force)
    machine.wait("destroyed")
    status, text = flyctl.fly.error("POST", f"{machine.path}/lease?ttl=120")
    assert (status, "machine not found" in text) == (404, True)


@shows("flyctl", "`machine leases view`, `machine leases clear`", "flyctl")
def test_leases(flyctl: Flyctl, machine: Machine) -> None:
    fly, path = flyctl.fly, f"{machine.path}/lease"
    nonce = fly.ok("POST", f"{path}?ttl=600")["data"]["nonce"]
    machine.get()
    viewed = fly.ok("GET", path)["data"]
    assert viewed["nonce"] == nonce
    assert isinstance(viewed["expires_at"], int)
    fly.ok("DELETE", path, headers={NONCE: viewed["nonce"]})
    status, text = fly.error("GET", path)
    assert status == 404
    assert " lease not found" in text


@shows("flyctl", "`volumes create`, `list`, `show`, `update`, `extend`, `destroy`", "flyctl")
def test_volumes(flyctl: Flyctl, app: App) -> None:
    fly, volumes = flyctl.fly, f"{app.path}/volumes"
    made = flyctl.create_volume("data", "fra")
    assert (made["region"], made["size_gb"], made["snapshot_retention"]) == ("fra", 1, 5)
    one = f"{volumes}/{made['id']}"
    ask(fly, APP_BASIC, appName=app.name)
    assert [item["id"] for item in fly.ok("GET", volumes)] == [made["id"]]
    assert ask(fly, VOLUME, id=made["id"])["volume"]["app"]["name"] == app.name
    assert fly.ok("GET", one)["name"] == "data"
    changed = {"snapshot_retention": 7, "auto_backup_enabled": False}
    assert fly.ok("PUT", one, changed)["snapshot_retention"] == 7
    extended = fly.ok("PUT", f"{one}/extend", {"size_gb": 3})
    assert (extended["volume"]["size_gb"], extended["needs_restart"]) == (3, False)
    assert fly.ok("DELETE", one)["id"] == made["id"]
    live = [item for item in fly.ok("GET", volumes) if item["state"] == "created"]
    assert live == []


@shows("flyctl", "`volumes snapshots create`, `volumes snapshots list`, `volumes fork`", "flyctl")
def test_snapshots(flyctl: Flyctl, app: App) -> None:
    fly = flyctl.fly
    made = flyctl.create_volume("data", "ord")
    snapshots = f"{app.path}/volumes/{made['id']}/snapshots"
    fly.ok("POST", snapshots)
    [listed] = fly.ok("GET", snapshots)
    assert {"id", "size", "digest", "created_at", "status", "retention_days"} <= listed.keys()
    restored = flyctl.create_volume("data", "ord", snapshot_id=listed["id"])
    forked = flyctl.create_volume("data", "ord", source_volume_id=made["id"])
    assert len({made["id"], restored["id"], forked["id"]}) == 3


@shows(
    "flyctl", "`ips list`, `ips allocate-v4 [--shared]`, `ips allocate-v6 [--private]`", "flyctl"
)
def test_addresses(flyctl: Flyctl, app: App) -> None:
    kinds = ("v4", "v6", "private_v6")
    for kind in kinds:
        given = {"appId": app.name, "type": kind, "region": ""}
        made = ask(flyctl.fly, ALLOCATE, input=given)["allocateIpAddress"]["ipAddress"]
        assert made["type"] == kind
    given = {"appId": app.name, "type": "shared_v4", "region": ""}
    shared = ask(flyctl.fly, ALLOCATE, input=given)["allocateIpAddress"]["app"]["sharedIpAddress"]
    listed = ask(flyctl.fly, IPS, appName=app.name)["app"]
    assert listed["sharedIpAddress"] == shared
    assert [item["type"] for item in listed["ipAddresses"]["nodes"]] == list(kinds)
    assert len(flyctl.fly.ok("GET", f"{app.path}/ip_assignments")["ips"]) == 4


@shows("flyctl", "`machine create`: as `machine run`, and the machine is left stopped", "flyctl")
def test_create(flyctl: Flyctl, app: App) -> None:
    image = ask(flyctl.fly, IMAGE, appName=app.name, imageRef="alpine")["app"]["image"]["ref"]
    machine = app.create(wait=None, skip_launch=True, image=image)
    assert flyctl.wait(machine) == "stopped"
    assert machine.exits() == []
