"""What the fields of flyctl's GraphQL queries answer: everything that might be selected in them.

Queries: `resource_*.go` in superfly/fly-go.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from pytest_flymachines.emulator import ips
from pytest_flymachines.emulator.answers import Problem
from pytest_flymachines.emulator.app_secrets import digest, write
from pytest_flymachines.emulator.apps import create_app, delete_app
from pytest_flymachines.emulator.call import Call
from pytest_flymachines.emulator.images import resolve
from pytest_flymachines.emulator.model import App, IpAssignment, Secret
from pytest_flymachines.emulator.queries import Field
from pytest_flymachines.emulator.regions import REGIONS
from pytest_flymachines.emulator.render import org_name, org_number
from pytest_flymachines.emulator.wiretime import now_ms, rfc3339

__all__ = ["RESOLVERS", "NotFound", "org_id"]


T = TypeVar("T")


class SecretInput(Struct):
    """A secret to set."""

    key: str
    value: str


class SetSecrets(Struct):
    """Input of `setSecrets`."""

    appId: str  # noqa: N815 - as GraphQL names it
    secrets: list[SecretInput] = []
    replaceAll: bool = False  # noqa: N815


class UnsetSecrets(Struct):
    """Input of `unsetSecrets`."""

    appId: str  # noqa: N815
    keys: list[str] = []


USER = {"id": "u1", "email": "dev@example.com", "name": "Developer"}


class NotFound(Exception):
    """What was asked for does not exist; GraphQL says so with status 200."""


async def _app(call: Call, field: Field) -> dict[str, Any]:
    app = _find_app(call, str(field.arguments.get("name") or ""))
    shown = _app_fields(call, app)
    for inner in field.fields:
        if inner.name == "image":
            shown["image"] = await _image(call, str(inner.arguments.get("ref") or ""))
    return shown


async def _image(call: Call, ref: str) -> dict[str, Any] | None:
    try:
        digest = await resolve(call.emulator.flyd.engine, ref)
    except Problem:
        return None
    return {
        "id": f"img_{digest[-12:]}",
        "digest": digest,
        "ref": ref,
        # A number in a string; nothing here knows the size of a layer.
        "compressedSize": "1",
        "manifest": {},
    }


async def _apps(call: Call, field: Field) -> dict[str, Any]:
    org, role = field.arguments.get("organizationId"), field.arguments.get("role")
    nodes = [
        _app_fields(call, app)
        for app in call.emulator.store.apps.values()
        if org in (None, "", org_id(app.org)) and role in (None, "", app.role)
    ]
    return {"pageInfo": {"hasNextPage": False, "endCursor": ""}, "nodes": nodes}


async def _app_name_available(call: Call, field: Field) -> bool:
    return field.arguments.get("name") not in call.emulator.store.apps


async def _organization(call: Call, field: Field) -> dict[str, Any]:
    slug = str(field.arguments.get("slug") or "")
    if slug not in call.emulator.orgs():
        raise NotFound("Could not find Organization")
    return _org_fields(slug)


async def _organizations(call: Call, _: Field) -> dict[str, Any]:
    return {"nodes": [_org_fields(slug) for slug in call.emulator.orgs()]}


async def _personal_organization(call: Call, _: Field) -> dict[str, Any]:
    return _org_fields(call.emulator.org)


async def _viewer(call: Call, _: Field) -> dict[str, Any]:
    return {
        "__typename": "User",
        **USER,
        "enablePaidHobby": False,
        "personalOrganization": _org_fields(call.emulator.org),
    }


async def _machine(call: Call, field: Field) -> dict[str, Any]:
    life = call.emulator.flyd.life(str(field.arguments.get("machineId")))
    app = call.emulator.store.apps.get(life.machine.app) if life else None
    if life is None or app is None:
        raise NotFound("Could not find Machine")
    machine = life.machine
    return {
        "id": machine.id,
        "name": machine.name,
        "state": machine.state,
        "region": machine.region,
        "instanceId": machine.instance_id,
        "app": _app_fields(call, app),
        "events": {"nodes": []},
    }


async def _node(call: Call, field: Field) -> dict[str, Any]:
    volume = call.emulator.store.volumes.get(str(field.arguments.get("id")))
    app = call.emulator.store.apps.get(volume.app) if volume else None
    if volume is None or app is None:
        raise NotFound("Could not find Volume")
    return {"id": volume.id, "state": volume.state, "app": _app_fields(call, app)}


async def _nearest_region(call: Call, _: Field) -> dict[str, Any]:
    return _region(call.emulator.region)


async def _platform(call: Call, _: Field) -> dict[str, Any]:
    return {
        "requestRegion": call.emulator.region,
        "regions": [_region(code) for code in REGIONS],
    }


async def _allocate_ip(call: Call, field: Field) -> dict[str, Any]:
    given = _input(field, dict[str, Any])
    app = _find_app(call, str(given.get("appId") or ""))
    assignment = ips.assign(
        call.emulator,
        app,
        str(given.get("type") or ""),
        region=str(given.get("region") or ""),
        network=str(given.get("network") or ""),
        org={org_id(slug): slug for slug in call.emulator.orgs()}.get(
            str(given.get("organizationId")), ""
        ),
    )
    shown = None if assignment.shared else _ip(assignment, app)
    return {"ipAddress": shown, "app": _app_fields(call, app)}


async def _release_ip(call: Call, field: Field) -> dict[str, Any]:
    given = _input(field, dict[str, Any])
    app = _find_app(call, str(given.get("appId") or ""))
    ips.release(call.emulator, app, str(given.get("ip") or ""))
    return {"clientMutationId": None, "app": _app_fields(call, app)}


async def _set_secrets(call: Call, field: Field) -> dict[str, Any]:
    given = _input(field, SetSecrets)
    app = _find_app(call, given.appId)
    values: dict[str, str | None] = dict.fromkeys(app.secrets) if given.replaceAll else {}
    values |= {secret.key: secret.value for secret in given.secrets}
    write(call.emulator, app, values)
    return {"app": _app_fields(call, app), "release": _secrets_release(app)}


async def _unset_secrets(call: Call, field: Field) -> dict[str, Any]:
    given = _input(field, UnsetSecrets)
    app = _find_app(call, given.appId)
    write(call.emulator, app, dict.fromkeys(given.keys))
    return {"app": _app_fields(call, app), "release": _secrets_release(app)}


async def _create_app(call: Call, field: Field) -> dict[str, Any]:
    given = _input(field, dict[str, Any])
    slugs = {org_id(slug): slug for slug in call.emulator.orgs()}
    org = slugs.get(str(given.get("organizationId")), call.emulator.org)
    app = create_app(
        call.emulator, str(given.get("name") or ""), org, str(given.get("network") or "")
    )
    return {"app": _app_fields(call, app)}


async def _delete_app(call: Call, field: Field) -> dict[str, Any]:
    app = _find_app(call, str(field.arguments.get("appId") or ""))
    delete_app(call.emulator, app)
    return {"organization": _org_fields(app.org)}


RESOLVERS: dict[str, Callable[[Call, Field], Awaitable[Any]]] = {
    "app": _app,
    "apps": _apps,
    "appNameAvailable": _app_name_available,
    "organization": _organization,
    "organizations": _organizations,
    "personalOrganization": _personal_organization,
    "viewer": _viewer,
    "machine": _machine,
    "node": _node,
    "nearestRegion": _nearest_region,
    "platform": _platform,
    "allocateIpAddress": _allocate_ip,
    "releaseIpAddress": _release_ip,
    "setSecrets": _set_secrets,
    "unsetSecrets": _unset_secrets,
    "createApp": _create_app,
    "deleteApp": _delete_app,
}


def _input(field: Field, kind: type[T]) -> T:
    try:
        return msgspec.convert(field.arguments.get("input"), kind)
    except msgspec.ValidationError as error:
        raise Problem(400, f"Variable $input was provided invalid value: {error}") from None


def _find_app(call: Call, name: str) -> App:
    app = call.emulator.store.apps.get(name)
    if app is None or call.access.app not in (None, name):
        raise NotFound("Could not find App")
    return app


def _app_fields(call: Call, app: App) -> dict[str, Any]:
    """Everything of an app; its id is its name, and its number a JSON number."""
    machines = [item for item in call.emulator.store.machines_of(app.name) if not item.destroyed_ms]
    shared = next((item.ip for item in app.ips.values() if item.shared), None)
    owned = [_ip(item, app) for item in app.ips.values() if not item.shared]
    return {
        "id": app.name,
        "internalNumericId": app.number,
        "name": app.name,
        "hostname": f"{app.name}.fly.dev",
        "cnameTarget": f"{app.id}.{app.name}.fly.dev",
        "deployed": bool(machines),
        "network": app.network,
        "status": "deployed" if machines else "pending",
        "appUrl": f"https://{app.name}.fly.dev",
        "version": 1,
        "platformVersion": "machines",
        "organization": _org_fields(app.org),
        "postgresAppRole": {"name": app.role} if app.role else None,
        "ipAddresses": {"nodes": owned},
        "sharedIpAddress": shared,
        "currentRelease": None,
        "egressIpAddresses": {"nodes": []},
        "limitedAccessTokens": {"nodes": []},
        "hostIssues": {"nodes": []},
        "machines": {"nodes": []},
        "services": [],
        "image": None,
        "secrets": [_secret(secret) for secret in app.secrets.values()],
    }


def _secret(secret: Secret) -> dict[str, Any]:
    return {
        "name": secret.name,
        "digest": digest(secret),
        "createdAt": rfc3339(secret.created_ms),
    }


def _secrets_release(app: App) -> dict[str, Any]:
    """The release that a change of secrets is; its number is the version of the secrets."""
    return {
        "id": f"release_{app.id}_{app.secrets_version}",
        "version": app.secrets_version,
        "reason": "SECRETS",
        "description": "Secrets updated",
        "user": USER,
        "evaluationId": "",
        "createdAt": rfc3339(now_ms()),
    }


def _org_fields(slug: str) -> dict[str, Any]:
    """Everything of an organization; its number is a string."""
    return {
        "id": org_id(slug),
        "internalNumericId": str(org_number(slug)),
        "slug": slug,
        "rawSlug": slug,
        "name": org_name(slug),
        "type": "PERSONAL" if slug == "personal" else "SHARED",
        "paidPlan": True,
        "billable": True,
        "viewerRole": "admin",
        "addOns": {"nodes": []},
        "limitedAccessTokens": {"nodes": []},
        "members": {"edges": []},
    }


def org_id(slug: str) -> str:
    """The opaque id of an organization."""
    return hashlib.sha256(slug.encode()).hexdigest()[:20]


def _ip(assignment: IpAssignment, app: App) -> dict[str, Any]:
    network = None
    if assignment.network:
        network = {"name": assignment.network, "organization": {"slug": app.org}}
    return {
        "id": assignment.id,
        "address": assignment.ip,
        "type": assignment.type,
        "region": assignment.region,
        "createdAt": rfc3339(assignment.created_ms),
        "network": network,
        "serviceName": assignment.service_name,
    }


def _region(code: str) -> dict[str, Any]:
    region = REGIONS[code]
    return {
        "code": code,
        "name": region.name,
        "latitude": region.latitude,
        "longitude": region.longitude,
        "gatewayAvailable": region.gateway_available,
        "requiresPaidPlan": False,
        "deprecated": False,
    }
