"""`/tokens/current`: what the caller's token allows."""

from __future__ import annotations

import hashlib

from starlette.responses import Response

from pytest_flymachines.emulator.answers import answer
from pytest_flymachines.emulator.call import Call, Routes
from pytest_flymachines.emulator.render import org_name

__all__ = ["routes"]

routes = Routes()


@routes.on("GET", "/v1/tokens/current")
async def current(call: Call) -> Response:
    """The token of this request; its id tells nothing of the token itself."""
    app = call.access.app
    owner = call.emulator.store.apps.get(app) if app else None
    org = owner.org if owner else call.emulator.org
    return answer(
        {
            "tokens": [
                {
                    "token_id": hashlib.sha256(f"id of {app}".encode()).hexdigest()[:16],
                    "organization": org_name(org),
                    "org_slug": org,
                    "apps": [app] if app else [],
                    "user": "" if app else "dev@example.com",
                    "source_machine_id": "",
                    "restricted_to_machine": "",
                }
            ]
        }
    )
