"""Apps (reference, section 2.1). What exists is only read."""

from __future__ import annotations

import secrets

from pytest_flymachines.probe.registry import check
from pytest_flymachines.probe.trial import Trial
from pytest_flymachines.probe.wire import CannotTell


@check("an App has name, network, status and its organization", "fly-go", "2.1")
def read(trial: Trial) -> None:
    answer = trial.send("GET", trial.ground.path)
    trial.same("status", answer.status, 200)
    trial.same("name", answer.field("name"), trial.ground.app)
    for name in ("id", "network", "status"):
        trial.true(f"{name} is a text", isinstance(answer.field(name), str))
    trial.true("organization.slug", answer.field("organization", "slug"))


@check("the apps of an organization, in the short form", "openapi", "2.1")
def listed(trial: Trial) -> None:
    org = _org(trial)
    answer = trial.send("GET", "/v1/apps", query={"org_slug": org}, private=True)
    trial.same("status", answer.status, 200)
    apps = answer.field("apps") or []
    trial.same("total_apps", answer.field("total_apps"), len(apps))
    ours = [app for app in apps if app.get("name") == trial.ground.app]
    trial.same("the app is listed", len(ours), 1)
    for app in ours:
        fields = {"id", "name", "machine_count", "volume_count", "network"}
        trial.true("short form", fields <= app.keys(), sorted(app))


@check("422 for a name that is not allowed", "docs", "2.1", own_app=True)
def bad_name(trial: Trial) -> None:
    answer = trial.send("POST", "/v1/apps", {"name": "Not_Allowed!", "org_slug": _org(trial)})
    trial.refused(answer, 422, "Validation failed: Name")


@check("422 with `status: name_taken` for a name that is taken", "fly-go", "2.1", own_app=True)
def taken_name(trial: Trial) -> None:
    answer = trial.send("POST", "/v1/apps", {"name": trial.ground.app, "org_slug": _org(trial)})
    trial.refused(answer, 422, "Name has already been taken")
    trial.same("status field", answer.field("status"), "name_taken")


@check("what a create without an organization is answered", "unknown", "2.1", own_app=True)
def without_org(trial: Trial) -> None:
    name = f"ptfm-probe-{secrets.token_hex(8)}"
    answer = trial.ground.make_app(name, lambda: trial.send("POST", "/v1/apps", {"name": name}))
    trial.note_answer("answer", answer)


@check("404 `Could not find App` for the deletion of an unknown app", "docs", "2.1", own_app=True)
def delete_unknown(trial: Trial) -> None:
    answer = trial.send("DELETE", f"/v1/apps/ptfm-probe-{secrets.token_hex(8)}")
    trial.refused(answer, 404, "Could not find App", "not found")


def _org(trial: Trial) -> str:
    if not trial.ground.org:
        raise CannotTell("the organization of the app is not known")
    return trial.ground.org
