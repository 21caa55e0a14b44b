"""Metadata: changed in any live state, without a new version and without a restart."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct
from starlette.responses import Response

from pytest_flymachines.emulator.answers import Problem, answer, empty, failed_precondition
from pytest_flymachines.emulator.call import MACHINE, Call, Routes
from pytest_flymachines.emulator.model import Machine

__all__ = ["routes"]

routes = Routes()

METADATA = MACHINE + "/metadata"
KEY = METADATA + "/{key:path}"
MAX_CHARACTERS = 1024 * 1024
MAX_KEY = 255


class Metadata(Struct):
    """Body of update; null or an empty string removes a key."""

    metadata: dict[str, str | None] | None = None
    machine_version: str | None = None
    updated_at: str | None = None


class Value(Struct):
    """Body of the write of one key."""

    value: str | None = None
    updated_at: str | None = None


@routes.on("GET", METADATA)
async def get_all(call: Call) -> Response:
    """All keys."""
    return answer(call.life().machine.config.metadata or {})


@routes.on("PUT", METADATA)
@routes.on("PATCH", METADATA)
async def update(call: Call) -> Response:
    """Set and remove several keys; both methods leave the others as they are."""
    machine = call.live().machine
    body = call.body(Metadata, "main.updateMetadataRequest", keep_nulls=True)
    if body.machine_version and body.machine_version != machine.instance_id:
        raise failed_precondition(
            f"machine version mismatch, expected {body.machine_version}, "
            f"currently {machine.instance_id}"
        )
    return _write(call, machine, body.metadata or {})


@routes.on("GET", KEY)
async def get(call: Call) -> Response:
    """One key."""
    key = call.param("key")
    metadata = call.life().machine.config.metadata or {}
    if key not in metadata:
        raise Problem(404, f"not_found: metadata key {key} not found")
    return answer({"value": metadata[key]})


@routes.on("POST", KEY)
async def put_key(call: Call) -> Response:
    """Write one key; an empty value removes it."""
    machine = call.live().machine
    body = call.body(Value, "main.upsertMetadataKeyRequest", keep_nulls=True)
    return _write(call, machine, {call.param("key"): body.value})


@routes.on("DELETE", KEY)
async def delete_key(call: Call) -> Response:
    """Remove one key."""
    machine = call.live().machine
    return _write(call, machine, {call.param("key"): None})


def _write(call: Call, machine: Machine, changes: Mapping[str, str | None]) -> Response:
    merged: dict[str, str | None] = {**(machine.config.metadata or {}), **changes}
    if long := [key for key in changes if len(key) > MAX_KEY]:
        raise Problem(400, f"invalid key {long[0][:20]}..., cannot exceed {MAX_KEY} characters")
    kept = {key: value for key, value in merged.items() if value}
    if sum(len(key) + len(value) for key, value in kept.items()) > MAX_CHARACTERS:
        raise Problem(400, f"metadata cannot exceed {MAX_CHARACTERS} characters")
    machine.config.metadata = kept or None
    call.emulator.flyd.changed(machine)
    return empty()
