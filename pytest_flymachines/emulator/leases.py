"""Leases: the exclusive right to change one machine, held by who knows the nonce."""

from __future__ import annotations

import time

from msgspec import Struct
from starlette.responses import Response

from pytest_flymachines.emulator import fields, ids
from pytest_flymachines.emulator.answers import Problem, answer
from pytest_flymachines.emulator.call import MACHINE, Call, Routes, integer
from pytest_flymachines.emulator.lifecycle import Life
from pytest_flymachines.emulator.model import Lease, Machine
from pytest_flymachines.emulator.wiretime import rfc3339

__all__ = ["bounded", "grant", "held_lease", "require", "routes"]

routes = Routes()

DEFAULT_TTL_S = 15
MAX_TTL_S = 365 * 24 * 3600
OWNER = "emulator@tokens.fly.io"


class LeaseRequest(Struct):
    """Body of acquire."""

    ttl: int = 0
    description: str = ""


def bounded(where: str, ttl_s: int) -> int:
    """A time to live, in seconds; 0 means that none was given.

    Raises:
        Problem: 400 for one that no lease can have.
    """
    if not 0 <= ttl_s <= MAX_TTL_S:
        raise Problem(400, f"invalid {where}, must be between 0 and {MAX_TTL_S}")
    return ttl_s


def held_lease(machine: Machine) -> Lease | None:
    """The lease in force; one that ran out is none."""
    lease = machine.lease
    return lease if lease and lease.expires_at > time.time() else None


def require(call: Call, life: Life) -> None:
    """Let a change pass only to the holder of the machine's lease.

    Raises:
        Problem: 409 when another holds it.
    """
    lease = held_lease(life.machine)
    if lease and call.header("fly-machine-lease-nonce") != lease.nonce:
        raise _held(life.machine, lease)


def grant(call: Call, machine: Machine, ttl_s: int, description: str = "") -> Lease:
    """Give out a lease, or prolong the one in force; whoever holds it keeps its nonce."""
    old = held_lease(machine)
    lease = Lease(
        nonce=old.nonce if old else ids.nonce(),
        expires_at=int(time.time()) + (ttl_s or DEFAULT_TTL_S),
        owner=OWNER,
        description=description or (old.description if old else ""),
        version=machine.instance_id,
    )
    machine.lease = lease
    call.emulator.flyd.changed(machine)
    return lease


def _held(machine: Machine, lease: Lease) -> Problem:
    until = rfc3339(lease.expires_at * 1000)
    text = f"machine ID {machine.id} lease currently held by {lease.owner}, expires at {until}"
    return Problem(409, text)


@routes.on("POST", MACHINE + "/lease")
async def acquire(call: Call) -> Response:
    """Acquire, or refresh with the nonce."""
    life = call.live()
    body = call.body(LeaseRequest, "main.createLeaseRequest")
    ttl = call.query("ttl")
    ttl_s = bounded("ttl", integer(ttl) if ttl else body.ttl)
    fields.name("description", body.description)
    require(call, life)
    lease = grant(call, life.machine, ttl_s, body.description)
    return answer({"status": "success", "data": lease}, 201)


@routes.on("GET", MACHINE + "/lease")
async def look(call: Call) -> Response:
    """The lease in force."""
    life = call.life()
    lease = held_lease(life.machine)
    if lease is None:
        raise _none(life.machine)
    return answer({"status": "success", "data": lease})


@routes.on("DELETE", MACHINE + "/lease")
async def release(call: Call) -> Response:
    """Give it back; a nonce of a lease that is over finds none.

    A destroy ends it: flyctl gives it back after that, and passes over ` lease not found` only.
    """
    life = call.life()
    lease = held_lease(life.machine)
    if lease is None or call.header("fly-machine-lease-nonce") != lease.nonce:
        raise _none(life.machine)
    life.machine.lease = None
    call.emulator.flyd.changed(life.machine)
    return answer({"status": "success", "data": {"ok": True}})


def _none(machine: Machine) -> Problem:
    return Problem(404, f"not_found: machine ID {machine.id} lease not found")
