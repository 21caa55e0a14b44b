"""App secrets: written and deleted by name, read back only on request.

They reach a machine's environment at its next start (`boot.environment`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from msgspec import Struct
from starlette.responses import Response

from pytest_flymachines.emulator.answers import Problem, answer
from pytest_flymachines.emulator.call import APP, Call, Routes, boolean, integer
from pytest_flymachines.emulator.emulator import Emulator
from pytest_flymachines.emulator.model import App, Secret
from pytest_flymachines.emulator.wiretime import now_ms, rfc3339

__all__ = ["digest", "routes", "write"]

routes = Routes()

SECRETS = APP + "/secrets"
ONE = SECRETS + "/{secret}"
MAX_SECRETS = 1000
MAX_NAME = 255


class SecretValues(Struct):
    """Body of update; null deletes."""

    values: dict[str, str | None] | None = None


class SecretValue(Struct):
    """Body of the write of one."""

    value: str = ""


@routes.on("GET", SECRETS)
async def list_secrets(call: Call) -> Response:
    """All of them."""
    app = _current(call)
    return answer({"secrets": [_shown(call, secret) for secret in app.secrets.values()]})


@routes.on("POST", SECRETS)
async def update(call: Call) -> Response:
    """Write and delete several."""
    app = call.app()
    body = call.body(SecretValues, "main.updateSecretsRequest", keep_nulls=True)
    write(call.emulator, app, body.values or {})
    shown = [_shown(call, secret) for secret in app.secrets.values()]
    version = app.secrets_version
    return answer({"secrets": shown, "version": version, "Version": version})


@routes.on("GET", ONE)
async def get(call: Call) -> Response:
    """One of them."""
    return answer(_shown(call, _secret(call, _current(call))))


@routes.on("POST", ONE)
async def put(call: Call) -> Response:
    """Write one."""
    app = call.app()
    body = call.body(SecretValue, "main.setSecretRequest")
    write(call.emulator, app, {call.param("secret"): body.value})
    version = {"version": app.secrets_version, "Version": app.secrets_version}
    return answer(_shown(call, _secret(call, app)) | version, 201)


@routes.on("DELETE", ONE)
async def delete(call: Call) -> Response:
    """Delete one."""
    app = call.app()
    write(call.emulator, app, {_secret(call, app).name: None})
    return answer({"version": app.secrets_version, "Version": app.secrets_version})


def write(emulator: Emulator, app: App, values: Mapping[str, str | None]) -> None:
    """Change the secrets under one new version; None removes one.

    Raises:
        Problem: 400.
    """
    for name in values:
        if not name.isidentifier() or not name.isascii() or len(name) > MAX_NAME:
            raise Problem(400, f"invalid secret name {name[:MAX_NAME]!r}")
    if len(app.secrets.keys() | values.keys()) > MAX_SECRETS:
        raise Problem(400, f"an app cannot have more than {MAX_SECRETS} secrets")
    app.secrets_version += 1
    now = now_ms()
    for name, value in values.items():
        if value is None:
            app.secrets.pop(name, None)
            continue
        old = app.secrets.get(name)
        created = old.created_ms if old else now
        app.secrets[name] = Secret(name, value, created, now, app.secrets_version)
    emulator.store.put(app)


def digest(secret: Secret) -> str:
    """What tells one value from another without showing it."""
    return hashlib.sha256(secret.value.encode()).hexdigest()[:16]


def _current(call: Call) -> App:
    """The app, if its secrets are as new as the caller wants them."""
    app = call.app()
    boolean(call.query("show_secrets"), where="show_secrets")  # refused also when there are none
    wanted = call.query("min_version") or call.query("version")
    if wanted and integer(wanted, where="min_version") > app.secrets_version:
        raise Problem(400, f"version {wanted} is not available, currently {app.secrets_version}")
    return app


def _secret(call: Call, app: App) -> Secret:
    secret = app.secrets.get(call.param("secret"))
    if secret is None:
        raise Problem(404, f"not_found: secret {call.param('secret')} not found")
    return secret


def _shown(call: Call, secret: Secret) -> dict[str, object]:
    shown: dict[str, object] = {
        "name": secret.name,
        "digest": digest(secret),
        "created_at": rfc3339(secret.created_ms),
        "updated_at": rfc3339(secret.updated_ms),
    }
    if boolean(call.query("show_secrets"), where="show_secrets"):
        shown["value"] = secret.value
    return shown
