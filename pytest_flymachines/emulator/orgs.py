"""All machines and volumes of an organization, oldest change first, in pages."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from datetime import datetime
from typing import TypeVar

from starlette.responses import Response

from pytest_flymachines.emulator.answers import Problem, answer
from pytest_flymachines.emulator.call import Call, Routes, boolean
from pytest_flymachines.emulator.history import number
from pytest_flymachines.emulator.model import Machine, Volume
from pytest_flymachines.emulator.regions import regions_of
from pytest_flymachines.emulator.render import org_machine_json, volume_json
from pytest_flymachines.emulator.wiretime import rfc3339_ms

__all__ = ["routes"]

routes = Routes()

MAX_PAGE = 1000
GONE = ("destroyed", "pending_destroy", "destroying")

Item = TypeVar("Item", Machine, Volume)


@routes.on("GET", "/v1/orgs/{org}/machines")
async def machines(call: Call) -> Response:
    """The machines."""
    page, more = _page(
        call, [machine for app in _apps(call) for machine in call.emulator.flyd.listed(app)]
    )
    summary = boolean(call.query("summary"), where="summary")
    shown = [org_machine_json(machine) for machine in page]
    if summary:
        for machine in shown:
            del machine["config"]
    last = page[-1].id if page else ""
    return answer({"machines": shown, "last_machine_id": last, "error_regions": []} | more)


@routes.on("GET", "/v1/orgs/{org}/volumes")
async def volumes(call: Call) -> Response:
    """The volumes."""
    page, more = _page(
        call, [volume for app in _apps(call) for volume in call.emulator.store.volumes_of(app)]
    )
    summary = boolean(call.query("summary"), where="summary")
    shown = [
        volume_json(volume, summary=summary)
        | {"app_name": volume.app, "updated_at": rfc3339_ms(volume.updated_ms)}
        for volume in page
    ]
    last = page[-1].id if page else ""
    return answer({"volumes": shown, "last_volume_id": last} | more)


def _apps(call: Call) -> Iterable[str]:
    slug, allowed = call.param("org"), call.access.app
    if slug not in call.emulator.orgs():
        raise Problem(404, f'Could not find Organization "{slug}"')
    return [
        app.name
        for app in call.emulator.store.apps.values()
        if app.org == slug and allowed in (None, app.name)
    ]


def _page(call: Call, items: list[Item]) -> tuple[list[Item], dict[str, object]]:
    """The items of this page, and the fields that lead to the next one."""
    deleted = boolean(call.query("include_deleted"), where="include_deleted")
    states = {state for state in call.query("state").split(",") if state}
    regions = regions_of(call.query("region")) if call.query("region") else None
    after = _after(call)
    limit = min(number(call.query("limit"), MAX_PAGE, where="limit"), MAX_PAGE)
    fitting = sorted(
        (
            item
            for item in items
            if (item.state in states if states else deleted or item.state not in GONE)
            and (regions is None or item.region in regions)
            and (item.updated_ms, item.id) > after
        ),
        key=lambda item: (item.updated_ms, item.id),
    )
    page = fitting[:limit]
    last = page[-1] if page else None
    more: dict[str, object] = {
        "next_cursor": _cursor(last) if last and len(fitting) > limit else "",
        "last_updated_at": rfc3339_ms(last.updated_ms) if last else "",
    }
    return page, more


def _cursor(item: Machine | Volume) -> str:
    return base64.urlsafe_b64encode(f"{item.updated_ms} {item.id}".encode()).decode()


def _after(call: Call) -> tuple[int, str]:
    """Where the page begins: after the cursor, else after `updated_after`."""
    if cursor := call.query("cursor"):
        try:
            updated, _, last = base64.urlsafe_b64decode(cursor).decode().partition(" ")
            return int(updated), last
        except (binascii.Error, ValueError):
            raise Problem(400, "invalid cursor") from None
    if text := call.query("updated_after"):
        try:
            return round(datetime.fromisoformat(text).timestamp() * 1000), "~"
        except (ValueError, OverflowError):
            raise Problem(400, f"invalid updated_after, {text!r} is not RFC 3339") from None
    return 0, ""
