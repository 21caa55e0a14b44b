"""Regions, placements, tokens, addresses, organization (reference, section 2.5)."""

from __future__ import annotations

from pytest_flymachines.probe.registry import check
from pytest_flymachines.probe.trial import Trial, shape
from pytest_flymachines.probe.wire import CannotTell

_EUROPE = ("ams", "arn", "cdg", "fra", "lhr")
_AMERICAS = ("dfw", "ewr", "gru", "iad", "lax", "ord", "sjc", "yyz")
_REST = ("bom", "jnb", "nrt", "sin", "syd")


@check("regions with code, name and place; the nearest one among them", "openapi", "2.5")
def regions(trial: Trial) -> None:
    answer = trial.send("GET", "/v1/platform/regions", private=True)
    trial.same("status", answer.status, 200)
    rows = answer.field("Regions") or answer.field("regions") or []
    nearest = answer.field("Nearest") or answer.field("nearest")
    codes = [row.get("code") for row in rows]
    trial.true("the nearest is one of them", nearest in codes)
    expected = {"code", "name", "latitude", "longitude", "gateway_available", "deprecated"}
    trial.true("fields", rows and expected <= rows[0].keys(), sorted(rows[0]) if rows else None)
    trial.note("keys", sorted(answer.json or ()))
    trial.note("codes", sorted(codes))


@check("the regions that this project knows are still there", "docs", "12.3")
def known_regions(trial: Trial) -> None:
    answer = trial.send("GET", "/v1/platform/regions", private=True)
    rows = answer.field("Regions") or answer.field("regions") or []
    codes = {row.get("code") for row in rows if not row.get("deprecated")}
    known = {*_EUROPE, *_AMERICAS, *_REST}
    trial.same("missing", sorted(known - codes), [])


@check("placements: regions with room, with count and concurrency", "seen", "2.5")
def placements(trial: Trial) -> None:
    if not trial.ground.org:
        raise CannotTell("the organization of the app is not known")
    guest = {"cpu_kind": "shared", "cpus": 1, "memory_mb": 256}
    body = {"org_slug": trial.ground.org, "compute": guest, "region": "any", "count": 1}
    answer = trial.send("POST", "/v1/platform/placements", body)
    trial.same("status", answer.status, 200)
    rows = answer.field("Regions") or answer.field("regions") or []
    trial.true("at least one", rows)
    lower = {key.lower() for key in rows[0]} if rows else set()
    trial.true("fields", {"region", "count"} <= lower, sorted(lower))
    trial.note("keys", sorted(answer.json or ()))
    missing = trial.send("POST", "/v1/platform/placements", {"compute": guest})
    trial.true("`org_slug` is required", missing.status >= 400, missing.status)


@check("tokens/current: what the token allows", "openapi", "2.5")
def token(trial: Trial) -> None:
    answer = trial.send("GET", "/v1/tokens/current", private=True)
    trial.same("status", answer.status, 200)
    trial.true("a list", isinstance(answer.field("tokens"), list))
    trial.note("shape", shape(answer.json))


@check("the addresses of an app", "docs", "2.5")
def addresses(trial: Trial) -> None:
    answer = trial.send("GET", f"{trial.ground.path}/ip_assignments", private=True)
    trial.same("status", answer.status, 200)
    trial.true("a list", isinstance(answer.field("ips"), list))


@check("machines of an organization, in pages", "openapi", "2.2")
def org_machines(trial: Trial) -> None:
    if not trial.ground.org:
        raise CannotTell("the organization of the app is not known")
    path = f"/v1/orgs/{trial.ground.org}/machines"
    answer = trial.send("GET", path, query={"limit": 1}, private=True)
    trial.among("status", answer.status, 200, 403)
    if answer.status == 200:
        trial.true("a list", isinstance(answer.field("machines"), list))
        trial.note("shape", shape(answer.json))
