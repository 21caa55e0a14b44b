"""Addresses, organizations, regions, tokens, and what is not there."""

from __future__ import annotations

import pytest

from tests.emulator.conftest import App, Fly
from tests.emulator.fidelity import shows


@shows(
    "POST A/ip_assignments", "v4, shared_v4, v6, private_v6; the shared one is given once", "docs"
)
@shows("GET A/ip_assignments", "the addresses of the app; none until one is given", "docs")
@shows("DELETE A/ip_assignments/{ip}", "204; 404 for one that the app has not", "openapi")
def test_addresses(app: App) -> None:
    path = f"{app.path}/ip_assignments"
    assert app.fly.ok("GET", path) == {"ips": []}
    empty = {"region": "", "org_slug": "", "network": "", "service_name": ""}
    made = [
        app.fly.ok("POST", path, {"type": kind, **empty})
        for kind in ("v4", "shared_v4", "v6", "private_v6", "shared_v4")
    ]
    assert [item["shared"] for item in made] == [False, True, False, False, True]
    assert made[3]["ip"].startswith("fdaa:")
    assert len(app.fly.ok("GET", path)["ips"]) == 4
    app.fly.ok("DELETE", f"{path}/{made[2]['ip']}")
    assert len(app.fly.ok("GET", path)["ips"]) == 3
    assert app.fly.error("DELETE", f"{path}/{made[2]['ip']}")[0] == 404
    assert app.fly.error("POST", path, {"type": "v5"})[0] == 400


@shows(
    "GET /v1/orgs/{org}/machines", "oldest change first, in pages; filters as for lists", "openapi"
)
def test_machines_of_an_organization(fly: Fly) -> None:
    for name in ("org-a", "org-b"):
        fly.ok("POST", "/v1/apps", {"name": name, "org_slug": "paged"})
    machines = [
        App(fly, name).create(skip_launch=True, wait="stopped", region=region)
        for name in ("org-a", "org-b")
        for region in ("fra", "ord")
    ]
    path = "/v1/orgs/paged/machines"
    everything = fly.ok("GET", path)
    assert {item["id"] for item in everything["machines"]} == {item.id for item in machines}
    updated = [item["updated_at"] for item in everything["machines"]]
    assert updated == sorted(updated)
    assert {item["app_name"] for item in everything["machines"]} == {"org-a", "org-b"}
    assert everything["next_cursor"] == ""
    found, cursor = [], ""
    while True:
        page = fly.ok("GET", path, params={"limit": 3, "cursor": cursor})
        found += [item["id"] for item in page["machines"]]
        cursor = page["next_cursor"]
        if not cursor:
            break
    assert found == [item["id"] for item in everything["machines"]]
    assert len(fly.ok("GET", path, params={"region": "fra"})["machines"]) == 2
    assert fly.ok("GET", path, params={"state": "started"})["machines"] == []
    assert "config" not in fly.ok("GET", path, params={"summary": "true"})["machines"][0]
    after = everything["last_updated_at"]
    assert fly.ok("GET", path, params={"updated_after": after})["machines"] == []
    assert fly.error("GET", path, params={"updated_after": "yesterday"})[0] == 400
    assert fly.error("GET", path, params={"cursor": "!"})[0] == 400
    assert fly.error("GET", "/v1/orgs/unknown/machines")[0] == 404


@shows("GET /v1/orgs/{org}/volumes", "the volumes, as the machines", "openapi")
def test_volumes_of_an_organization(fly: Fly) -> None:
    fly.ok("POST", "/v1/apps", {"name": "org-v", "org_slug": "volumes"})
    made = fly.ok("POST", "/v1/apps/org-v/volumes", {"name": "data"})
    shown = fly.ok("GET", "/v1/orgs/volumes/volumes")
    assert [item["id"] for item in shown["volumes"]] == [made["id"]]
    assert shown["last_volume_id"] == made["id"]
    assert "bytes_total" not in fly.ok("GET", "/v1/orgs/volumes/volumes?summary=1")["volumes"][0]


@shows(
    "GET /v1/platform/regions",
    "the regions, with keys in capitals as the live API sends them",
    "seen",
)
@shows(
    "POST /v1/platform/placements",
    "the regions with room, keys in capitals; `org_slug` is required",
    "seen",
)
def test_regions_and_placements(fly: Fly) -> None:
    regions = fly.ok("GET", "/v1/platform/regions")
    assert regions["Nearest"] == "ord"
    assert {"ord", "fra", "syd"} <= {region["code"] for region in regions["Regions"]}
    body = {"org_slug": "personal", "region": "lhr,eu", "count": 2, "weights": {"region": 50}}
    placed = fly.ok("POST", "/v1/platform/placements", body)["Regions"]
    assert placed[0] == {"Region": "lhr", "Count": 2, "Concurrency": 10}
    assert {row["Region"] for row in placed} == {"lhr", "ams", "arn", "cdg", "fra"}
    assert fly.error("POST", "/v1/platform/placements", {"region": "lhr"})[0] == 400


@shows("GET /v1/tokens/current", "what the token allows; 401 without one", "openapi")
def test_current_token(fly: Fly) -> None:
    [token] = fly.ok("GET", "/v1/tokens/current")["tokens"]
    assert (token["org_slug"], token["apps"]) == ("personal", [])
    assert fly.emulator.token not in str(token)
    assert fly.error("GET", "/v1/tokens/current", headers={"authorization": ""})[0] == 401


@shows("errors", "501 for what is not emulated, so that silence is not taken for success", "ours")
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/apps/{app}/certificates"),
        ("POST", "/v1/apps/{app}/certificates/acme"),
        ("POST", "/v1/apps/{app}/certificates/custom"),
        ("GET", "/v1/apps/{app}/certificates/a.example"),
        ("DELETE", "/v1/apps/{app}/certificates/a.example"),
        ("DELETE", "/v1/apps/{app}/certificates/a.example/acme"),
        ("DELETE", "/v1/apps/{app}/certificates/a.example/custom"),
        ("POST", "/v1/apps/{app}/certificates/a.example/check"),
        ("GET", "/v1/apps/{app}/secretkeys"),
        ("GET", "/v1/apps/{app}/secretkeys/k"),
        ("POST", "/v1/apps/{app}/secretkeys/k"),
        ("DELETE", "/v1/apps/{app}/secretkeys/k"),
        ("POST", "/v1/apps/{app}/secretkeys/k/generate"),
        ("POST", "/v1/apps/{app}/secretkeys/k/encrypt"),
        ("POST", "/v1/apps/{app}/secretkeys/k/decrypt"),
        ("POST", "/v1/apps/{app}/secretkeys/k/sign"),
        ("POST", "/v1/apps/{app}/secretkeys/k/verify"),
        ("GET", "/v1/postgres"),
        ("POST", "/v1/postgres/x/y"),
        ("POST", "/v1/tokens/authenticate"),
        ("POST", "/v1/tokens/authorize"),
        ("POST", "/v1/tokens/kms"),
        ("POST", "/v1/tokens/oidc"),
    ],
)
def test_what_is_not_emulated(app: App, method: str, path: str) -> None:
    status, text = app.fly.error(method, path.format(app=app.name))
    assert status == 501
    assert "not part of this emulator" in text


NUMBERS = ("\N{SUPERSCRIPT TWO}", "--1", "1e3", "9" * 5000, "0x10", " 1")


@pytest.mark.parametrize("number", NUMBERS)
def test_what_go_reads_as_no_number_is_refused(app: App, number: str) -> None:
    machine = app.create(skip_launch=True, wait=None)
    for method, path, name in (
        ("GET", f"{machine.path}/wait", "timeout"),
        ("GET", f"{machine.path}/events", "limit"),
        ("POST", f"{machine.path}/lease", "ttl"),
        ("GET", f"{app.path}/secrets", "min_version"),
        ("GET", "/v1/orgs/personal/machines", "limit"),
        ("POST", f"{machine.path}/restart", "timeout"),
    ):
        assert app.fly.error(method, path, params={name: number})[0] == 400


def test_times_out_of_range_are_refused(fly: Fly) -> None:
    path = "/v1/orgs/personal/machines?updated_after=0001-01-01"
    assert fly.error("GET", path)[0] == 400
