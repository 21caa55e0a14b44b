"""The JSON side API that `flyctl machine run` needs: organizations, and reports of builds.

Source: `internal/uiex` in superfly/flyctl.
"""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from pytest_flymachines.emulator.answers import Problem, answer
from pytest_flymachines.emulator.call import Call, Routes
from pytest_flymachines.emulator.render import org_name, org_number
from pytest_flymachines.emulator.resolvers import org_id

__all__ = ["routes"]

routes = Routes()

ORGANIZATIONS = "/api/v1/organizations"


@routes.on("GET", ORGANIZATIONS)
async def organizations(call: Call) -> Response:
    """All organizations."""
    return answer({"organizations": [_org(slug) for slug in call.emulator.orgs()]})


@routes.on("GET", ORGANIZATIONS + "/{org}")
async def organization(call: Call) -> Response:
    """One organization."""
    slug = call.param("org")
    if slug not in call.emulator.orgs():
        raise Problem(404, f'Could not find Organization "{slug}"')
    return answer({"organization": _org(slug)})


@routes.on("POST", "/api/v1/builds")
async def begin_build(_: Call) -> Response:
    """A build has begun; only its report is taken note of."""
    return answer({"id": 1, "status": "started", "wallclock_time_ms": 0})


@routes.on("POST", "/api/v1/builds/finish")
async def finish_build(_: Call) -> Response:
    """A build has ended."""
    return answer({"id": 1, "status": "completed", "wallclock_time_ms": 0})


def _org(slug: str) -> dict[str, Any]:
    return {
        "id": org_id(slug),
        "internal_numeric_id": org_number(slug),
        "slug": slug,
        "raw_slug": slug,
        "name": org_name(slug),
        "paid_plan": True,
        "personal": slug == "personal",
        "billing_status": "CURRENT",
        "billable": True,
        "provisions_beta_extensions": False,
        "remote_builder_image": "",
    }
