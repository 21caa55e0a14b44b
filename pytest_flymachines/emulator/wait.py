"""`GET .../wait`: block until a machine reaches a state, at most a minute."""

from __future__ import annotations

import asyncio

from starlette.responses import Response

from pytest_flymachines.emulator.answers import Problem, answer
from pytest_flymachines.emulator.call import MACHINE, Call, Routes, integer
from pytest_flymachines.emulator.lifecycle import Life
from pytest_flymachines.emulator.model import Transition

__all__ = ["routes", "until"]

routes = Routes()

STATES = ("started", "stopped", "suspended", "destroyed", "failed", "settled")
SETTLED = ("started", "stopped", "suspended", "destroyed", "failed")
MIN_S, MAX_S = 1, 60


@routes.on("GET", MACHINE + "/wait")
async def wait(call: Call) -> Response:
    """Wait for one of the states in `state`; see `until` for what counts."""
    life = call.life()
    params = call.request.query_params
    asked = [state for text in params.getlist("state") for state in text.split(",") if state]
    asked = asked or ["started"]
    for state in asked:
        if state not in STATES:
            raise Problem(
                400,
                "invalid_argument: invalid WaitMachineRequest.State: value must be in list "
                f"[{' '.join(STATES)}]",
            )
    timeout_s = _timeout_s(call.query("timeout"))
    version = call.query("version") or call.query("instance_id")
    reached = await until(life, asked, version, params.get("from_event_id") or "", timeout_s)
    if reached is None:
        current = "replaced" if _replaced(life, version) else life.machine.state
        raise Problem(
            408,
            "deadline_exceeded: machine failed to reach desired state, "
            f"{', '.join(asked)}, currently {current}",
        )
    body = {
        "ok": True,
        "state": reached.state,
        "version": reached.version,
        "event_id": reached.id,
    }
    return answer(body)


async def until(
    life: Life, asked: list[str], version: str, after: str, timeout_s: float
) -> Transition | None:
    """Wait for a state.

    Args:
        life: The machine.
        asked: States, or `settled` for any at rest.
        version: Only in this version of the config; empty means any.
        after: Only what comes after this event; empty takes the present state too.
        timeout_s: How long at most.

    Returns:
        The transition that ends the wait, or None when the time is over or the version is past.
    """
    states = {state for name in asked for state in (SETTLED if name == "settled" else (name,))}

    def fits(transition: Transition) -> bool:
        return transition.state in states and version in ("", transition.version)

    history = life.machine.transitions
    past = [entry for entry in history if entry.id > after] if after else history[-1:]
    for entry in past:
        if fits(entry):
            return entry
    if _replaced(life, version):
        return None
    reached: asyncio.Future[Transition | None] = asyncio.get_running_loop().create_future()

    def observe(transition: Transition) -> None:
        if reached.done():
            return
        if fits(transition):
            reached.set_result(transition)
        elif _replaced(life, version):
            reached.set_result(None)

    life.observers.append(observe)
    try:
        return await asyncio.wait_for(reached, timeout_s)
    except TimeoutError:
        return None
    finally:
        life.observers.remove(observe)


def _replaced(life: Life, version: str) -> bool:
    """Whether this version of the config is a past one."""
    machine = life.machine
    return version != machine.instance_id and any(
        old.version == version for old in machine.versions
    )


def _timeout_s(text: str) -> int:
    if not text:
        return MAX_S
    timeout_s = integer(text)
    if not MIN_S <= timeout_s <= MAX_S:
        raise Problem(
            400,
            "invalid_argument: invalid WaitMachineRequest.Timeout: "
            "value must be inside range [1s, 1m0s]",
        )
    return timeout_s
