"""Apps: create, list, get, delete, deploy tokens."""

from __future__ import annotations

import re

from msgspec import Struct
from starlette.responses import Response

from pytest_flymachines.emulator import fields, ids
from pytest_flymachines.emulator.answers import Problem, answer, empty
from pytest_flymachines.emulator.call import APP, Call, Routes
from pytest_flymachines.emulator.emulator import Emulator
from pytest_flymachines.emulator.model import App, Machine, Volume
from pytest_flymachines.emulator.render import app_json
from pytest_flymachines.emulator.wiretime import Duration, DurationError, now_ms

__all__ = ["create_app", "delete_app", "routes"]

routes = Routes()

NAME = re.compile(r"^[a-z0-9-]{1,63}$")
MAX_APPS = 1000


class CreateApp(Struct):
    """Body of create; `app_name` is the name's older name."""

    name: str = ""
    app_name: str = ""
    org_slug: str = ""
    network: str = ""
    app_role_id: str = ""
    enable_subdomains: bool = False


class DeployToken(Struct):
    """Body of deploy_token."""

    expiry: str = ""


def create_app(emulator: Emulator, name: str, org: str, network: str = "", role: str = "") -> App:
    """Make an app.

    Raises:
        Problem: 422 for a name that is taken or not allowed.
    """
    if not NAME.match(name):
        raise Problem(
            422,
            "Validation failed: Name under 63 chars using numbers, lowercase letters and dashes",
        )
    if name in emulator.store.apps:
        raise Problem(422, "Validation failed: Name has already been taken", code="name_taken")
    if len(emulator.store.apps) >= MAX_APPS:
        raise Problem(422, f"this emulator holds at most {MAX_APPS} apps")
    app = App(
        id=ids.app_id(),
        number=emulator.next_app_number(),
        name=name,
        org=org,
        network=network or "default",
        created_ms=now_ms(),
        role=role,
    )
    emulator.store.put(app)
    return app


def delete_app(emulator: Emulator, app: App) -> None:
    """Delete an app with its machines and volumes, which nobody finds from now on."""
    machines = list(emulator.store.machines_of(app.name))
    volumes = list(emulator.store.volumes_of(app.name))
    for volume in volumes:
        volume.app = ""
    for machine in machines:
        machine.app = ""
        emulator.flyd.lives[machine.id].destroy(force=True)
    work = _remove(emulator, machines, volumes)
    emulator.flyd.spawn(work, f"delete app {app.name}")
    emulator.store.drop(app)
    emulator.flyd.announce(app.name)


async def _remove(emulator: Emulator, machines: list[Machine], volumes: list[Volume]) -> None:
    """Wait for the machines to be gone, then forget them and remove the volumes."""
    for machine in machines:
        await emulator.flyd.lives[machine.id].over()
        emulator.flyd.forget(machine)
    for volume in volumes:
        await emulator.flyd.remove_volume(volume)
        emulator.store.drop(volume)
    emulator.store.flush()


@routes.on("GET", "/v1/apps")
async def list_apps(call: Call) -> Response:
    """The apps of an organization."""
    org = call.query("org_slug")
    if not org:
        raise Problem(400, "org_slug is required")
    role = call.query("app_role")
    shown = [
        app_json(app, call.emulator.store)
        for app in call.emulator.store.apps.values()
        if app.org == org and role in ("", app.role) and call.access.app in (None, app.name)
    ]
    fields = ("id", "name", "machine_count", "volume_count", "network")
    apps = [{field: app[field] for field in fields} for app in shown]
    return answer({"total_apps": len(apps), "apps": apps})


@routes.on("POST", "/v1/apps")
async def create(call: Call) -> Response:
    """Create an app; it can be read at once."""
    body = call.body(CreateApp, "main.createAppRequest")
    if call.access.app is not None:
        raise Problem(403, "unauthorized")
    if not body.org_slug:
        raise Problem(400, "org_slug is required")
    for field in ("org_slug", "network", "app_role_id"):
        fields.name(field, getattr(body, field))
    name = body.name or body.app_name
    app = create_app(call.emulator, name, body.org_slug, body.network, body.app_role_id)
    shown = app_json(app, call.emulator.store) | {"created_at": app.created_ms}
    response = answer(shown, 201)
    # Source: flaps_test.go in superfly/fly-go; a client that keeps it reads what it wrote.
    response.headers["set-cookie"] = f"fly_flaps_affinity=emulator; Path=/v1/apps/{app.name}"
    return response


@routes.on("GET", APP)
async def get(call: Call) -> Response:
    """One app."""
    return answer(app_json(call.app(), call.emulator.store))


@routes.on("DELETE", APP)
async def delete(call: Call) -> Response:
    """Delete an app with all that is in it."""
    delete_app(call.emulator, call.app())
    return empty(202)


@routes.on("POST", APP + "/deploy_token")
async def deploy_token(call: Call) -> Response:
    """A token that is good for this app."""
    body = call.body(DeployToken, "main.createAppDeployTokenRequest")
    try:
        lasts_s = Duration.parse(body.expiry).seconds if body.expiry else None
    except DurationError as error:
        raise Problem(400, str(error)) from None
    if lasts_s is not None and lasts_s <= 0:
        raise Problem(400, "invalid expiry, must be positive")
    return answer({"token": call.emulator.tokens.deploy_token(call.app().name)})
