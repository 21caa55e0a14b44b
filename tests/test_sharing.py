"""The state of a run that its processes share."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from pytest_flymachines.errors import MachineStartFailed
from pytest_flymachines.sharing import (
    FailedBefore,
    Intent,
    Launched,
    LostBefore,
    SharedState,
)


def launched(machine_id: str = "m1") -> Launched:
    return Launched(
        app="app",
        machine_id=machine_id,
        name="n",
        region="ord",
        workdir="/workspace",
        channel="agent",
    )


def never() -> Launched:
    raise AssertionError("launched again")


@pytest.fixture
def state(tmp_path: Path) -> SharedState:
    return SharedState(tmp_path / "run")


def test_many_at_once_launch_once(state: SharedState) -> None:
    calls: list[int] = []

    def launch() -> Launched:
        calls.append(1)
        return launched()

    found: list[Launched] = []

    def ask() -> None:
        found.append(SharedState(state.directory).attach_or_launch("key", launch))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert found == [launched()] * 8


def test_a_failure_is_told_to_all(state: SharedState) -> None:
    def fail() -> Launched:
        raise MachineStartFailed("no room")

    with pytest.raises(MachineStartFailed, match=r"^no room"):
        state.attach_or_launch("key", fail)
    with pytest.raises(FailedBefore, match="failed to start before in this run: no room"):
        state.attach_or_launch("key", never)


def test_a_lost_machine_is_told_or_forgotten(state: SharedState) -> None:
    state.attach_or_launch("a", launched)
    state.attach_or_launch("b", launched)
    before = state.version("a")
    state.lose("a", "another machine", "dead", replace=False)
    assert state.version("a") == before
    state.lose("a", "m1", "dead", replace=False)
    state.lose("b", "m1", "dead", replace=True)
    assert state.version("a") != before
    with pytest.raises(LostBefore, match="dead"):
        state.attach_or_launch("a", never)
    assert state.attach_or_launch("b", lambda: launched("m2")).machine_id == "m2"


def test_nothing_is_launched_when_the_run_ends(state: SharedState) -> None:
    state.attach_or_launch("there", launched)
    state.end()
    assert state.attach_or_launch("there", never) == launched()
    with pytest.raises(MachineStartFailed, match="the run is ending"):
        state.attach_or_launch("key", never)


def test_a_name_that_serves_twice_is_remembered_twice(state: SharedState) -> None:
    for machine_id in ("", "m1", "", "m2"):
        state.intend(Intent(app="app", name="n", machine_id=machine_id))
    assert {intent.machine_id for intent in state.intents()} == {"m1", "m2"}


def test_an_intent_can_be_refused(state: SharedState) -> None:
    def refuse(noted: list[Intent]) -> None:
        raise ValueError(len(noted))

    state.intend(Intent(app="app", name="one"))
    with pytest.raises(ValueError, match="1"):
        state.intend(Intent(app="app", name="two"), refuse)
    assert [intent.name for intent in state.intents()] == ["one"]


def test_files_are_for_this_user_alone(state: SharedState) -> None:
    state.attach_or_launch("key", launched)
    state.intend(Intent(app="app", name="n"))
    files = [*state.directory.glob("*.state"), *state.directory.glob("*.intent")]
    assert len(files) == 2
    assert all(path.stat().st_mode & 0o077 == 0 for path in [state.directory, *files])
