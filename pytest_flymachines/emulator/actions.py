"""Actions on a machine: start, stop, suspend, restart, signal, cordon, uncordon."""

from __future__ import annotations

import re
import signal

from msgspec import Struct
from starlette.responses import Response

from pytest_flymachines.emulator import leases
from pytest_flymachines.emulator.answers import Problem, answer, ok
from pytest_flymachines.emulator.call import MACHINE, Call, Routes, boolean
from pytest_flymachines.emulator.signals import SIGNALS, STOP_SIGNALS, signal_name
from pytest_flymachines.emulator.wiretime import Duration, DurationError

__all__ = ["routes"]

routes = Routes()

SECONDS = re.compile("[0-9]{1,9}")


class StopRequest(Struct):
    """Body of stop; fly-go always sends `timeout`, `"0s"` for none."""

    signal: str | int = ""
    timeout: Duration | None = None


class SignalRequest(Struct):
    """Body of signal: a name, or the number that fly-go sends."""

    signal: str | int = ""


@routes.on("POST", MACHINE + "/start")
async def start(call: Call) -> Response:
    """Start or resume."""
    life = call.live()
    leases.require(call, life)
    previous = life.start()
    return answer({"previous_state": previous, "migrated": False, "new_host": ""})


@routes.on("POST", MACHINE + "/stop")
async def stop(call: Call) -> Response:
    """Stop."""
    life = call.live()
    body = call.body(StopRequest, "main.stopRequest")
    leases.require(call, life)
    name = signal_name(body.signal, STOP_SIGNALS, "StopMachineRequest") if body.signal else None
    life.stop(name, body.timeout.seconds if body.timeout else None)
    return ok()


@routes.on("POST", MACHINE + "/suspend")
async def suspend(call: Call) -> Response:
    """Suspend."""
    life = call.live()
    leases.require(call, life)
    life.suspend()
    return ok()


@routes.on("POST", MACHINE + "/restart")
async def restart(call: Call) -> Response:
    """Restart; the query says how to stop first."""
    life = call.live()
    leases.require(call, life)
    asked = call.query("signal")
    name = signal_name(asked, STOP_SIGNALS, "RestartMachineRequest") if asked else None
    force = boolean(call.query("force_stop"), where="force_stop")
    life.restart(name, _timeout_s(call.query("timeout")), force=force)
    return ok()


@routes.on("POST", MACHINE + "/signal")
async def send_signal(call: Call) -> Response:
    """Send a signal to the main process; fly-go sends no nonce with it, so none is asked for."""
    life = call.live()
    body = call.body(SignalRequest, "main.signalRequest")
    name = signal_name(body.signal, SIGNALS, "SignalMachineRequest")
    life.signal(signal.Signals[name])
    return ok()


@routes.on("POST", MACHINE + "/cordon")
async def cordon(call: Call) -> Response:
    """Take it out of the proxy's routing."""
    return _cordon(call, cordoned=True)


@routes.on("POST", MACHINE + "/uncordon")
async def uncordon(call: Call) -> Response:
    """Put it back into the proxy's routing."""
    return _cordon(call, cordoned=False)


def _cordon(call: Call, *, cordoned: bool) -> Response:
    life = call.live()
    leases.require(call, life)
    life.machine.cordoned = cordoned
    call.emulator.flyd.changed(life.machine)
    return ok()


def _timeout_s(text: str) -> float | None:
    """A Go duration, or a number of seconds."""
    if not text:
        return None
    if SECONDS.fullmatch(text):
        return float(text)
    try:
        return Duration.parse(text).seconds
    except DurationError as error:
        raise Problem(400, str(error)) from None
