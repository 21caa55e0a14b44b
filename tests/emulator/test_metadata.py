from __future__ import annotations

import pytest

from tests.emulator.conftest import App
from tests.emulator.fidelity import shows


@shows("GET M/metadata", "all keys; `{}` when there are none", "docs")
@shows("GET M/metadata/{key}", '`{"value": ..}`; 404 when it is not set', "openapi")
@shows("POST M/metadata/{key}", "204; writes one key", "fly-go")
@shows("DELETE M/metadata/{key}", "204; removes one key", "fly-go")
def test_one_key(app: App) -> None:
    machine = app.create("sleep", "inf")
    path = f"{machine.path}/metadata"
    assert app.fly.ok("GET", path) == {}
    version = machine.get()["instance_id"]
    app.fly.ok("POST", f"{path}/run", {"value": "1"})
    assert app.fly.ok("GET", path) == {"run": "1"}
    assert app.fly.ok("GET", f"{path}/run") == {"value": "1"}
    assert machine.get()["config"]["metadata"] == {"run": "1"}
    assert app.fly.error("GET", f"{path}/other")[0] == 404
    app.fly.ok("DELETE", f"{path}/run")
    assert app.fly.ok("GET", path) == {}
    shown = machine.get()
    assert (shown["instance_id"], shown["state"]) == (version, "started")


@shows("metadata", "a `%2F` in a key is part of the key", "fly-go")
def test_key_with_a_slash(app: App) -> None:
    machine = app.create("sleep", "inf", skip_launch=True, wait="stopped")
    path = f"{machine.path}/metadata"
    app.fly.ok("POST", f"{path}/team%2Fenv", {"value": "x"})
    assert app.fly.ok("GET", path) == {"team/env": "x"}
    assert app.fly.ok("GET", f"{path}/team%2Fenv") == {"value": "x"}
    app.fly.ok("DELETE", f"{path}/team%2Fenv")
    assert app.fly.ok("GET", path) == {}


@shows("PUT M/metadata", "sets several keys; null or an empty string removes one", "openapi")
@shows("PATCH M/metadata", "the same", "openapi")
@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_several_keys(app: App, method: str) -> None:
    machine = app.create("sleep", "inf", metadata={"a": "1", "b": "2", "c": "3"})
    path = f"{machine.path}/metadata"
    app.fly.ok(method, path, {"metadata": {"a": "9", "b": None, "c": "", "d": "4"}})
    assert app.fly.ok("GET", path) == {"a": "9", "d": "4"}
    version = machine.get()["version"]
    app.fly.ok(method, path, {"metadata": {"e": "5"}, "machine_version": version})
    stale = {"metadata": {"e": "6"}, "machine_version": "01ARZ3NDEKTSV4RRFFQ69G5FAV"}
    assert app.fly.error(method, path, stale)[0] == 412
    assert app.fly.error(method, path, {"metadata": {"e": 6}})[0] == 400
    assert app.fly.error(method, path, {"metadata": {"e": "x" * 1_050_000}})[0] == 400
    assert app.fly.ok("GET", path)["e"] == "5"
