"""What Fly has and this emulator has not: 501, so that nobody takes silence for success."""

from __future__ import annotations

from starlette.responses import Response

from pytest_flymachines.emulator.answers import Problem
from pytest_flymachines.emulator.call import APP, Call, Routes

__all__ = ["routes"]

routes = Routes()

ANY = ("GET", "POST", "PUT", "PATCH", "DELETE")
PATHS = {
    "certificates": (APP + "/certificates", APP + "/certificates/{rest:path}"),
    "secret keys": (APP + "/secretkeys", APP + "/secretkeys/{rest:path}"),
    "managed Postgres clusters": ("/v1/postgres", "/v1/postgres/{rest:path}"),
    "tokens of other kinds": (
        "/v1/tokens/oidc",
        "/v1/tokens/kms",
        "/v1/tokens/authenticate",
        "/v1/tokens/authorize",
    ),
}


def _refuse(what: str, method: str, *paths: str) -> None:
    @routes.on(method, *paths)
    async def refuse(_: Call) -> Response:
        raise Problem(501, f"unimplemented: {what} are not part of this emulator")


for _what, _paths in PATHS.items():
    for _method in ANY:
        _refuse(_what, _method, *_paths)
