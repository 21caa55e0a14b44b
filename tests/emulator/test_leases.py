from __future__ import annotations

import time
from typing import Any

import pytest

from tests.emulator.conftest import App, Machine, eventually
from tests.emulator.fidelity import shows


def acquire(machine: Machine, nonce: str | None = None, **options: Any) -> dict[str, Any]:
    headers = {"fly-machine-lease-nonce": nonce} if nonce else {}
    answer = machine.fly.ok("POST", f"{machine.path}/lease", headers=headers, **options)
    data: dict[str, Any] = answer["data"]
    return data


@shows("POST M/lease", "201 with nonce, expiry, owner, version, in an envelope", "docs")
@shows("POST M/lease", "the ttl comes in the query (fly-go) or in the body (docs)", "fly-go")
@shows("GET M/lease", "the lease; 404 with ` lease not found` when there is none", "flyctl")
@shows("DELETE M/lease", "gives it back; 404 when there is none or the nonce is stale", "flyctl")
def test_lease_is_acquired_and_released(app: App) -> None:
    machine = app.create("sleep", "inf")
    path = f"{machine.path}/lease"
    status, text = app.fly.error("GET", path)
    assert status == 404
    assert " lease not found" in text
    lease = acquire(machine, params={"ttl": 120})
    assert 110 < lease["expires_at"] - time.time() < 130
    assert lease["version"] == machine.get()["instance_id"]
    assert app.fly.ok("GET", path)["data"]["nonce"] == lease["nonce"]
    stale = {"fly-machine-lease-nonce": "000000000000"}
    assert app.fly.error("DELETE", path, headers=stale)[0] == 404
    headers = {"fly-machine-lease-nonce": lease["nonce"]}
    app.fly.ok("DELETE", path, headers=headers)
    assert app.fly.error("DELETE", path, headers=headers)[0] == 404
    again = acquire(machine, body={"ttl": 60, "description": "why"})
    assert again["nonce"] != lease["nonce"]
    assert again["description"] == "why"
    assert (
        app.fly.error(
            "POST", f"{path}?ttl=soon", headers={"fly-machine-lease-nonce": again["nonce"]}
        )[0]
        == 400
    )


def test_a_lease_is_for_a_year_at_most(app: App) -> None:
    machine = app.create("sleep", "inf")
    year_s = 365 * 24 * 3600
    for ttl_s in (year_s + 1, -1):
        status, text = app.fly.error("POST", f"{machine.path}/lease?ttl={ttl_s}")
        assert status == 400
        assert "invalid ttl, must be between 0 and 31536000" in text
    lease = acquire(machine, params={"ttl": year_s})
    assert year_s - 60 < lease["expires_at"] - time.time() < year_s + 60


@shows("POST M/lease", "with the nonce: the same nonce, a later expiry", "flyctl")
@shows("POST M/lease", "409 for others; the text names owner and expiry", "seen")
def test_lease_is_refreshed_by_its_holder_alone(app: App) -> None:
    machine = app.create("sleep", "inf")
    lease = acquire(machine, params={"ttl": 60})
    refreshed = acquire(machine, lease["nonce"], params={"ttl": 600})
    assert refreshed["nonce"] == lease["nonce"]
    assert refreshed["expires_at"] > lease["expires_at"]
    status, text = app.fly.error("POST", f"{machine.path}/lease")
    assert status == 409
    assert text.startswith(
        f"machine ID {machine.id} lease currently held by {lease['owner']}, expires at 2"
    )


CHANGES = [
    ("POST", "/start"),
    ("POST", "/stop"),
    ("POST", "/suspend"),
    ("POST", "/restart"),
    ("POST", "/cordon"),
    ("POST", "/uncordon"),
    ("DELETE", "?force=true"),
]


@shows(
    "leases",
    "409 for changes without the nonce: update, start, stop, suspend, restart, cordon, destroy",
    "seen",
)
@shows("leases", "reading, wait, exec, signal and metadata need no nonce", "fly-go")
@pytest.mark.parametrize(("method", "action"), CHANGES)
def test_changes_need_the_nonce(app: App, method: str, action: str) -> None:
    deaf = "trap '' HUP; touch ready; while :; do sleep 0.1; done"
    machine = app.create("sh", "-c", deaf).ready()
    nonce = acquire(machine, params={"ttl": 60})["nonce"]
    path = f"{machine.path}{action}"
    machine.post("signal", {"signal": "SIGHUP"})
    for headers in ({}, {"fly-machine-lease-nonce": "000000000000"}):
        status, text = app.fly.error(method, path, headers=headers)
        assert (status, "lease currently held by" in text) == (409, True)
    update = {"config": machine.get()["config"]}
    assert app.fly.error("POST", machine.path, update)[0] == 409
    assert machine.exec("true")["exit_code"] == 0
    app.fly.ok("POST", f"{machine.path}/metadata/k", {"value": "v"})
    machine.wait("started")
    app.fly.ok(method, path, headers={"fly-machine-lease-nonce": nonce})


@shows("leases", "end by themselves at their expiry", "docs")
def test_lease_expires(app: App) -> None:
    machine = app.create("sleep", "inf")
    acquire(machine, params={"ttl": 1})
    assert app.fly.error("POST", f"{machine.path}/stop")[0] == 409
    eventually(lambda: app.fly("GET", f"{machine.path}/lease").status_code == 404)
    machine.post("stop")


@shows("POST A/machines", "`lease_ttl` acquires a lease; the answer has its `nonce`", "docs")
def test_lease_at_create_and_update(app: App) -> None:
    body = {"lease_ttl": 60, "config": {"image": "alpine", "init": {"exec": ["sleep", "inf"]}}}
    made = app.fly.ok("POST", app.machines, body)
    machine = Machine(app, made["id"])
    assert "nonce" not in machine.get()
    headers = {"fly-machine-lease-nonce": made["nonce"]}
    assert app.fly.ok("GET", machine.path, headers=headers)["nonce"] == made["nonce"]
    machine.wait("started")
    updated = app.fly.ok("POST", machine.path, body, headers=headers)
    assert updated["nonce"] == made["nonce"]
    assert app.fly.error("DELETE", f"{machine.path}?force=true")[0] == 409
    app.fly.ok("DELETE", f"{machine.path}?force=true", headers=headers)
