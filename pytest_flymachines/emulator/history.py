"""What a machine has been through: its events and the versions of its config."""

from __future__ import annotations

from starlette.responses import Response

from pytest_flymachines.emulator.answers import Problem, answer
from pytest_flymachines.emulator.call import MACHINE, Call, Routes, integer

__all__ = ["number", "routes"]

routes = Routes()

DEFAULT_EVENTS, MAX_EVENTS = 20, 50


@routes.on("GET", MACHINE + "/events")
async def events(call: Call) -> Response:
    """The events, newest first; 20 of them unless `limit` says otherwise, at most 50."""
    limit = number(call.query("limit"), DEFAULT_EVENTS, where="limit")
    return answer(call.life().machine.events[: min(limit, MAX_EVENTS)])


@routes.on("GET", MACHINE + "/versions")
async def versions(call: Call) -> Response:
    """The versions, newest first."""
    return answer(call.life().machine.versions[::-1])


def number(text: str, default: int, *, where: str) -> int:
    """A positive number of a query.

    Raises:
        Problem: 400.
    """
    if not text:
        return default
    found = integer(text, where=where)
    if found < 1:
        raise Problem(400, f"invalid {where}: must be positive, is {found}")
    return found
