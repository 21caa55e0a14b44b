from __future__ import annotations

from tests.emulator.conftest import App
from tests.emulator.fidelity import shows


@shows("GET A/secrets", "names and digests; values only with `show_secrets`", "openapi")
@shows("POST A/secrets", "writes several, null deletes; answers with the new version", "openapi")
@shows("GET A/secrets/{secret}", "one secret; 404 for an unknown one", "openapi")
@shows("POST A/secrets/{secret}", "201; writes one", "openapi")
@shows("DELETE A/secrets/{secret}", "deletes one; answers with the new version", "openapi")
def test_secrets(app: App) -> None:
    path = f"{app.path}/secrets"
    assert app.fly.ok("GET", path) == {"secrets": []}
    first = app.fly.ok("POST", path, {"values": {"A": "1", "B": "2"}})
    assert [item["name"] for item in first["secrets"]] == ["A", "B"]
    second = app.fly.ok("POST", path, {"values": {"A": None, "C": "3"}})
    assert [item["name"] for item in second["secrets"]] == ["B", "C"]
    assert second["version"] == first["version"] + 1
    third = app.fly.ok("POST", f"{path}/D", {"value": "4"})
    assert third["version"] == second["version"] + 1
    assert "value" not in app.fly.ok("GET", f"{path}/D")
    assert app.fly.ok("GET", f"{path}/D", params={"show_secrets": "true"})["value"] == "4"
    assert third["digest"] != first["secrets"][0]["digest"]
    assert app.fly.ok("DELETE", f"{path}/D")["version"] == third["version"] + 1
    assert app.fly.error("GET", f"{path}/D")[0] == 404
    assert app.fly.error("DELETE", f"{path}/D")[0] == 404
    assert app.fly.error("POST", path, {"values": {"not a name": "x"}})[0] == 400
    assert app.fly.error("GET", path, params={"min_version": 99})[0] == 400
    assert app.fly.ok("GET", path, params={"version": first["version"]})


@shows("secrets", "reach a machine's environment at its next start, not before", "docs")
def test_secrets_reach_machines_at_their_next_start(app: App) -> None:
    machine = app.create("sleep", "inf")
    made = app.fly.ok("POST", f"{app.path}/secrets", {"values": {"NEW": "value"}})
    assert "NEW=value" not in machine.exec("env")["stdout"]
    body = {"config": machine.get()["config"], "min_secrets_version": made["version"]}
    new = app.fly.ok("POST", machine.path, body)
    machine.wait("started", version=new["version"])
    assert "NEW=value" in machine.exec("env")["stdout"]
