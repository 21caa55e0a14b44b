from __future__ import annotations

import pytest

from tests.emulator.conftest import App, Fly
from tests.emulator.fidelity import shows


@shows("POST /v1/apps", "201 with the whole App, which can be read at once", "fly-go")
@shows("GET A", "the App; 404 `app not found`", "fly-go")
def test_app_is_created_and_read(fly: Fly) -> None:
    body = {"name": "first", "org_slug": "personal", "network": "net", "app_role_id": ""}
    response = fly("POST", "/v1/apps?wait=true", body)
    made = response.json()
    assert (made["name"], made["network"], made["status"]) == ("first", "net", "pending")
    assert made["created_at"] > 1_700_000_000_000
    assert "fly_flaps_affinity=" in response.headers["set-cookie"]
    assert "Path=/v1/apps/first" in response.headers["set-cookie"]
    shown = fly.ok("GET", "/v1/apps/first")
    assert shown == {key: value for key, value in made.items() if key != "created_at"}
    assert fly.error("GET", "/v1/apps/nope") == (404, "app not found")


@shows("POST /v1/apps", "the name may come as `app_name`, as older documentation has it", "docs")
def test_app_name_may_come_under_its_older_name(fly: Fly) -> None:
    assert fly.ok("POST", "/v1/apps", {"app_name": "older", "org_slug": "x"})["name"] == "older"


@shows("POST /v1/apps", "422 for a name that is taken, with `status: name_taken`", "fly-go")
def test_taken_name_is_refused(app: App) -> None:
    response = app.fly("POST", "/v1/apps", {"name": app.name, "org_slug": "personal"})
    assert response.status_code == 422
    assert response.json() == {
        "error": "Validation failed: Name has already been taken",
        "status": "name_taken",
    }


@shows("POST /v1/apps", "422 for a name that is not allowed", "docs")
@pytest.mark.parametrize("name", ["Upper", "a" * 64, "under_score", "", "dot.ted", "a/b"])
def test_bad_name_is_refused(fly: Fly, name: str) -> None:
    assert fly.error("POST", "/v1/apps", {"name": name, "org_slug": "personal"}) == (
        422,
        "Validation failed: Name under 63 chars using numbers, lowercase letters and dashes",
    )


@shows("POST /v1/apps", "400 without an organization", "seen")
def test_organization_is_required(fly: Fly) -> None:
    assert fly.error("POST", "/v1/apps", {"name": "a"})[0] == 400
    assert fly.error("GET", "/v1/apps")[0] == 400


@shows(
    "GET /v1/apps", "the apps of one organization, in the short form, by role if asked", "openapi"
)
def test_apps_are_listed_by_organization(fly: Fly) -> None:
    for name, role in (("one", "postgres"), ("two", "")):
        fly.ok("POST", "/v1/apps", {"name": name, "org_slug": "listing", "app_role_id": role})
    listed = fly.ok("GET", "/v1/apps", params={"org_slug": "listing"})
    assert (listed["total_apps"], [item["name"] for item in listed["apps"]]) == (2, ["one", "two"])
    query = {"org_slug": "listing", "app_role": "postgres"}
    assert [item["name"] for item in fly.ok("GET", "/v1/apps", params=query)["apps"]] == ["one"]


@shows(
    "DELETE A", "202 without a body; its machines and volumes go with it; 404 names the app", "docs"
)
def test_delete_takes_machines_and_volumes_along(app: App) -> None:
    fly = app.fly
    machine = app.create("sleep", "inf")
    fly.ok("POST", f"{app.path}/volumes", {"name": "data", "region": "ord"})
    assert fly.ok("GET", app.path)["status"] == "deployed"
    fly.ok("DELETE", app.path)
    assert fly.error("GET", app.path) == (404, "app not found")
    assert fly.error("DELETE", app.path) == (404, f'Could not find App "{app.name}"')
    assert fly.error("GET", machine.path)[0] == 404
    fly.ok("POST", "/v1/apps", {"name": app.name, "org_slug": "personal"})
    assert fly.ok("GET", f"{app.path}/volumes") == []
    assert fly.ok("GET", app.machines) == []


@shows("POST A/deploy_token", "a token that is good for this app; 403 for any other", "docs")
def test_deploy_token_is_good_for_its_app_alone(app: App) -> None:
    fly = app.fly
    fly.ok("POST", "/v1/apps", {"name": f"{app.name}-b", "org_slug": "personal"})
    token = fly.ok("POST", f"{app.path}/deploy_token", {"expiry": "24h"})["token"]
    limited = Fly(fly.emulator, token)
    assert limited.ok("GET", app.path)["name"] == app.name
    assert limited.error("GET", f"{app.path}-b") == (403, "unauthorized")
    assert limited.error("POST", "/v1/apps", {"name": "x", "org_slug": "personal"})[0] == 403
    listed = limited.ok("GET", "/v1/apps", params={"org_slug": "personal"})
    assert [item["name"] for item in listed["apps"]] == [app.name]
    assert limited.ok("GET", "/v1/tokens/current")["tokens"][0]["apps"] == [app.name]
    assert limited.control.get("/faults").status_code == 401
    limited.close()
