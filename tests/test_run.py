"""What a run makes of a machine that it asks for after a failure."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from pytest_flymachines.api import Machine
from pytest_flymachines.errors import ApiError, NotFound, SettingsError
from pytest_flymachines.prices import spec_hourly_usd
from pytest_flymachines.run import Run
from pytest_flymachines.sharing import Intent, Launched, SharedState
from pytest_flymachines.spec import SandboxSpec

LAUNCHED = Launched(
    app="app", machine_id="m1", name="n", region="ord", workdir="/workspace", channel="agent"
)
PATH = "/v1/apps/app/machines/m1"


@pytest.mark.parametrize(
    ("found", "ended"),
    [
        (Machine(id="m1", state="started"), ""),
        (Machine(id="m1", state="suspended"), ""),
        (Machine(id="m1", state="stopped"), "stopped"),
        (Machine(id="m1", state="destroyed"), "destroyed"),
        (NotFound("GET", PATH, 404, "machine not found"), "destroyed"),
        # the API still says so of a host that it cannot reach
        (
            Machine(id="m1", state="started", host_status="unreachable"),
            "on a host that cannot be reached",
        ),
        # nobody knows
        (ApiError("GET", PATH, 503, ""), ""),
    ],
)
def test_a_machine_that_died_is_told_from_one_that_lives(
    found: Machine | Exception, ended: str
) -> None:
    def get_machine(app: str, machine_id: str) -> Machine:
        if isinstance(found, Exception):
            raise found
        return found

    run = cast("Run", SimpleNamespace(client=SimpleNamespace(get_machine=get_machine)))
    assert Run._ended(run, LAUNCHED) == ended


def test_a_machine_that_is_noted_again_is_paid_once(tmp_path: Path) -> None:
    """As one is that was refused in a region, and is tried in the next under its name."""
    spec = SandboxSpec()
    hourly = spec_hourly_usd(spec)
    assert hourly is not None
    settings = SimpleNamespace(budget=1.5 * hourly, ttl=3600)
    backend, state = SimpleNamespace(mode="live"), SharedState(tmp_path)
    run = cast("Run", SimpleNamespace(settings=settings, backend=backend, _state=state))
    for _ in range(2):
        Run._note(run, spec, Intent(app="app", name="one", hourly_usd=hourly))
    with pytest.raises(SettingsError, match=r"2 machine\(s\)"):
        Run._note(run, spec, Intent(app="app", name="two", hourly_usd=hourly))
    assert {intent.name for intent in state.intents()} == {"one"}
