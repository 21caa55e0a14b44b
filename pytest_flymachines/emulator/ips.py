"""Addresses of apps: given out and listed; behind each is the proxy on loopback.

The addresses are of the ranges for documentation, so that nobody's real one is meant.
"""

from __future__ import annotations

import secrets
from ipaddress import IPv6Address

from msgspec import Struct
from starlette.responses import Response

from pytest_flymachines.emulator import fields
from pytest_flymachines.emulator.answers import Problem, answer, empty
from pytest_flymachines.emulator.call import APP, Call, Routes
from pytest_flymachines.emulator.emulator import Emulator
from pytest_flymachines.emulator.model import App, IpAssignment
from pytest_flymachines.emulator.regions import known_regions
from pytest_flymachines.emulator.render import ip_json
from pytest_flymachines.emulator.wiretime import now_ms

__all__ = ["assign", "release", "routes"]

routes = Routes()

IPS = APP + "/ip_assignments"
TYPES = ("v4", "shared_v4", "v6", "private_v6")
SHARED = "198.51.100.1"
MAX_IPS = 100


class AssignRequest(Struct):
    """Body of assign; fly-go sends every key, empty where unset."""

    type: str = ""
    region: str = ""
    org_slug: str = ""
    network: str = ""
    service_name: str = ""


def assign(
    emulator: Emulator,
    app: App,
    kind: str,
    *,
    region: str = "",
    network: str = "",
    service_name: str = "",
    org: str = "",
) -> IpAssignment:
    """Give an app an address; a shared one is given once.

    Raises:
        Problem: 400 for an unknown type or region, 422 for too many.
    """
    if kind not in TYPES:
        raise Problem(400, f"invalid type, must be one of [{' '.join(TYPES)}]")
    if region not in ("", "global"):
        known_regions(region)
    if kind == "shared_v4" and SHARED in app.ips:
        return app.ips[SHARED]
    if len(app.ips) >= MAX_IPS:
        raise Problem(422, f"an app cannot have more than {MAX_IPS} addresses")
    ip = _address(kind)
    while ip in app.ips and kind != "shared_v4":
        ip = _address(kind)
    app.ips[ip] = assignment = IpAssignment(
        id=f"ip_{secrets.token_hex(8)}",
        ip=ip,
        type=kind,
        region=region or "global",
        service_name=service_name,
        shared=kind == "shared_v4",
        created_ms=now_ms(),
        network=network,
        org=org,
    )
    emulator.store.put(app)
    emulator.flyd.announce(app.name)
    return assignment


def release(emulator: Emulator, app: App, ip: str) -> None:
    """Take an address away.

    Raises:
        Problem: 404 when the app has no such address.
    """
    if app.ips.pop(ip, None) is None:
        raise Problem(404, f"not_found: IP address {ip} not found")
    emulator.store.put(app)
    emulator.flyd.announce(app.name)


@routes.on("GET", IPS)
async def list_ips(call: Call) -> Response:
    """The addresses of an app."""
    return answer({"ips": [ip_json(assignment) for assignment in call.app().ips.values()]})


@routes.on("POST", IPS)
async def create(call: Call) -> Response:
    """Give the app an address."""
    body = call.body(AssignRequest, "main.assignIPRequest")
    for field in ("org_slug", "network", "service_name"):
        fields.name(field, getattr(body, field))
    assignment = assign(
        call.emulator,
        call.app(),
        body.type,
        region=body.region,
        network=body.network,
        service_name=body.service_name,
        org=body.org_slug,
    )
    return answer(ip_json(assignment))


@routes.on("DELETE", IPS + "/{ip}")
async def delete(call: Call) -> Response:
    """Take an address away."""
    release(call.emulator, call.app(), call.param("ip"))
    return empty()


def _address(kind: str) -> str:
    noise = secrets.token_hex(4)
    match kind:
        case "shared_v4":
            return SHARED
        case "v4":
            return f"203.0.113.{1 + secrets.randbelow(254)}"
        case "private_v6":
            return str(IPv6Address(f"fdaa:0:{noise[:4]}:0:1::{noise[4:]}"))
        case _:
            return str(IPv6Address(f"2001:db8::{noise[:4]}:{noise[4:]}"))
