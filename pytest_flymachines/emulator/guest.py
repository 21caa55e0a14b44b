"""What goes on in a machine: its processes, and its memory with the balloon device."""

from __future__ import annotations

from msgspec import Struct
from starlette.responses import Response

from pytest_flymachines.emulator.answers import Problem, answer, failed_precondition
from pytest_flymachines.emulator.call import MACHINE, Call, Routes
from pytest_flymachines.emulator.engines.base import RunningMachine
from pytest_flymachines.emulator.lifecycle import Life

__all__ = ["routes"]

routes = Routes()

SORTABLE = ("pid", "stime", "rtime", "command", "directory", "cpu", "rss")


class MemoryLimit(Struct):
    """Body of a new limit."""

    limit_mb: int = 0


class Reclaim(Struct):
    """Body of reclaim."""

    amount_mb: int = 0


@routes.on("GET", MACHINE + "/ps")
async def processes(call: Call) -> Response:
    """The processes, by pid unless `sort_by` says otherwise."""
    sort_by, order = call.query("sort_by", "pid"), call.query("order", "asc").lower()
    if sort_by not in SORTABLE:
        raise Problem(400, f"invalid sort_by, must be one of [{' '.join(SORTABLE)}]")
    if order not in ("asc", "desc"):
        raise Problem(400, "invalid order, must be one of [asc desc]")
    found = await _running(call.live()).processes()
    found.sort(key=lambda process: getattr(process, sort_by), reverse=order == "desc")
    shown = [
        {field: getattr(process, field) for field in SORTABLE}
        | {
            "listen_sockets": [
                {"proto": proto, "address": address} for proto, address in process.listen_sockets
            ]
        }
        for process in found
    ]
    return answer(shown)


@routes.on("GET", MACHINE + "/memory")
async def memory(call: Call) -> Response:
    """Available memory, and the limit that the balloon leaves."""
    return answer(await _memory(call.live()))


@routes.on("PUT", MACHINE + "/memory")
async def set_memory(call: Call) -> Response:
    """Set the limit, at most the guest's memory."""
    life = call.live()
    body = call.body(MemoryLimit, "main.setMemoryLimitRequest")
    most = _guest_mb(life)
    if not 0 < body.limit_mb <= most:
        raise Problem(400, f"invalid limit_mb, must be between 1 and {most}")
    life.machine.memory_limit_mb = body.limit_mb
    call.emulator.flyd.changed(life.machine)
    return answer(await _memory(life))


@routes.on("POST", MACHINE + "/memory/reclaim")
async def reclaim(call: Call) -> Response:
    """Lower the limit by what is asked for, at most by what is available."""
    life = call.live()
    body = call.body(Reclaim, "main.reclaimMemoryRequest")
    now = await _memory(life)
    taken = max(min(body.amount_mb, now["available_mb"]), 0)
    life.machine.memory_limit_mb = now["limit_mb"] - taken
    call.emulator.flyd.changed(life.machine)
    return answer({"actual_mb": taken})


async def _memory(life: Life) -> dict[str, int]:
    limit_mb = life.machine.memory_limit_mb or _guest_mb(life)
    available_mb, total_mb = await _running(life).memory()
    used_mb = max(total_mb - available_mb, 0)
    return {"available_mb": max(limit_mb - used_mb, 0), "limit_mb": limit_mb}


def _guest_mb(life: Life) -> int:
    guest = life.machine.config.guest
    return guest.memory_mb if guest else 256


def _running(life: Life) -> RunningMachine:
    if life.machine.state != "started" or life.running is None:
        raise failed_precondition("machine not running")
    return life.running
