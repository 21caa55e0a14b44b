from __future__ import annotations

import pickle
import time
from typing import Any

import pytest

from pytest_flymachines._clock import ReplayClock
from pytest_flymachines.api import Machine, MachinesClient, StateMissed
from pytest_flymachines.errors import (
    ApiError,
    NotFound,
    SettingsError,
    Unauthorized,
    WaitTimeout,
)
from tests.api.conftest import TOKEN
from tests.api.samples import EXIT, ID, LAUNCH, PATH, START, VERSION, event, exited, machine
from tests.api.server import Answer, ApiServer, Cut, Reset, Step, StepClock

WAIT = f"{PATH}/wait"
REACHED = {"ok": True, "state": "started", "version": VERSION, "event_id": START["id"]}


def late(clock: StepClock, seconds: float = 57.0) -> Answer:
    """A poll that ends without the state, after so long."""
    text = "deadline_exceeded: machine failed to reach desired state, started, currently created"
    return Answer(408, {"error": text}, before=clock.takes(seconds))


def polls(server: ApiServer) -> list[int]:
    return [int(request.query["timeout"][0]) for request in server.calls("GET", WAIT)]


def test_a_state_that_is_reached_gives_the_machine(
    client: MachinesClient, server: ApiServer
) -> None:
    server.on("GET", WAIT, REACHED)
    server.on("GET", PATH, machine("started", START, LAUNCH))
    found = client.wait("app", ID, "started", timeout_s=30, version=VERSION, from_event_id="01A")
    assert (found.state, found.private_ip) == ("started", "fdaa:0:18:a7b:7d:f066:e83a:2")
    assert server.requests[0].query == {
        "state": ["started"],
        "timeout": ["30"],
        "version": [VERSION],
        "from_event_id": ["01A"],
    }


def test_several_states_can_be_waited_for(client: MachinesClient, server: ApiServer) -> None:
    server.on("GET", WAIT, {"ok": True})
    server.on("GET", PATH, machine("suspended"))
    assert client.wait("app", ID, ["stopped", "suspended"]).state == "suspended"
    assert server.requests[0].query["state"] == ["stopped", "suspended"]


def test_settled_is_any_state_at_rest(client: MachinesClient, server: ApiServer) -> None:
    server.on("GET", WAIT, {"ok": True, "state": "stopped"})
    server.on("GET", PATH, machine("stopped", EXIT, START))
    assert client.wait("app", ID, "settled").state == "stopped"


def test_a_long_wait_is_made_of_polls_that_the_api_accepts(
    client: MachinesClient, server: ApiServer, clock: StepClock
) -> None:
    server.on("GET", WAIT, late(clock), late(clock), REACHED)
    server.on("GET", PATH, machine("created"), machine("starting"), machine("started"))
    assert client.wait("app", ID, timeout_s=150).state == "started"
    assert polls(server) == [60, 60, 36]


@pytest.mark.parametrize(("timeout_s", "poll"), [(0.2, 1), (0, 1), (1.5, 2), (60, 60), (900, 60)])
def test_the_poll_stays_within_1_to_60_whole_seconds(
    client: MachinesClient, server: ApiServer, timeout_s: float, poll: int
) -> None:
    server.on("GET", WAIT, REACHED)
    server.on("GET", PATH, machine("started"))
    client.wait("app", ID, timeout_s=timeout_s)
    assert polls(server) == [poll]


def test_the_time_being_over_is_a_wait_timeout_with_the_state(
    client: MachinesClient, server: ApiServer, clock: StepClock
) -> None:
    server.on("GET", WAIT, late(clock))
    server.on("GET", PATH, machine("created", LAUNCH))
    with pytest.raises(WaitTimeout, match="another region") as caught:
        client.wait("app", ID, timeout_s=100)
    assert not isinstance(caught.value, StateMissed)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.state == "created"
    assert ID in str(caught.value)
    assert polls(server) == [60, 43]


def test_a_state_reached_between_poll_and_read_counts(
    client: MachinesClient, server: ApiServer, clock: StepClock
) -> None:
    server.on("GET", WAIT, late(clock))
    server.on("GET", PATH, machine("started"))
    assert client.wait("app", ID, timeout_s=300).state == "started"
    assert len(polls(server)) == 1


def test_a_read_that_lags_behind_is_not_believed(client: MachinesClient, server: ApiServer) -> None:
    server.on("GET", WAIT, REACHED)
    server.on("GET", PATH, machine("starting"))
    assert client.wait("app", ID).state == "started"


# states that pass by


@pytest.mark.parametrize(
    ("state", "events"),
    [
        ("stopped", [EXIT, START, LAUNCH]),
        ("stopped", [exited(3), event("restart", "started", 2), exited(1, restarting=True)]),
        ("failed", [LAUNCH]),
        ("destroying", [EXIT, START, LAUNCH]),
        ("destroyed", [EXIT, START, LAUNCH]),
        ("launch_failed", [LAUNCH]),
    ],
)
def test_a_machine_that_came_to_rest_elsewhere_ends_the_wait(
    client: MachinesClient,
    server: ApiServer,
    clock: StepClock,
    state: str,
    events: list[dict[str, Any]],
) -> None:
    server.on("GET", WAIT, late(clock, 5))
    server.on("GET", PATH, machine(state, *events))
    with pytest.raises(StateMissed, match=f"it is {state}") as caught:
        client.wait("app", ID, timeout_s=300, version=VERSION)
    assert caught.value.state == state
    assert caught.value.machine.id == ID
    assert len(polls(server)) == 1


def test_how_the_main_process_ended_is_told(
    client: MachinesClient, server: ApiServer, clock: StepClock
) -> None:
    server.on("GET", WAIT, late(clock))
    killed = exited(3, exit_code=137, oom_killed=True)
    server.on("GET", PATH, machine("stopped", killed, START))
    with pytest.raises(StateMissed, match=r"exit code 137 \(oom_killed\)") as caught:
        client.wait("app", ID)
    assert caught.value.exit_event is not None
    assert caught.value.exit_event.exit_code == 137
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.state) == (str(caught.value), "stopped")
    assert again.exit_event == caught.value.exit_event


def test_a_start_that_was_over_before_the_read_is_told(
    client: MachinesClient, server: ApiServer
) -> None:
    """The API says `started`, and the machine has ended by the time it is read."""
    server.on("GET", WAIT, REACHED)
    server.on("GET", PATH, machine("stopped", EXIT, START, LAUNCH))
    with pytest.raises(StateMissed):
        client.wait("app", ID)


@pytest.mark.parametrize(
    ("events", "arguments"),
    [
        ([exited(3, restarting=True), START], {}),  # the restart policy is at work
        ([START, EXIT], {}),  # started again since
        ([event("restart", "starting", 4), EXIT, START], {}),  # a restart's first step
        ([EXIT, event("restart", "restarting", 2), START], {}),
        ([EXIT, event("update", "replacing", 2), START], {}),  # the old run of an update
        ([EXIT, START], {"from_event_id": EXIT["id"]}),  # an end of before the start
        ([EXIT, START], {"version": "01K9"}),  # of another version
        ([LAUNCH], {}),  # created with skip_launch
        ([], {}),
    ],
)
def test_a_machine_that_is_on_its_way_is_waited_for(
    client: MachinesClient,
    server: ApiServer,
    clock: StepClock,
    events: list[dict[str, Any]],
    arguments: dict[str, str],
) -> None:
    server.on("GET", WAIT, late(clock), REACHED)
    server.on("GET", PATH, machine("stopped", *events), machine("started", START))
    assert client.wait("app", ID, timeout_s=300, **arguments).state == "started"


def test_a_fresh_end_counts_although_an_event_is_given(
    client: MachinesClient, server: ApiServer, clock: StepClock
) -> None:
    server.on("GET", WAIT, late(clock))
    server.on("GET", PATH, machine("stopped", EXIT, START, LAUNCH))
    with pytest.raises(StateMissed):
        client.wait("app", ID, timeout_s=300, from_event_id=LAUNCH["id"])


def test_a_cut_poll_says_nothing_about_a_machine_that_is_still_stopped(
    client: MachinesClient, server: ApiServer
) -> None:
    """The start may not have shown yet, so its old end is not taken for a new one."""
    server.on("GET", WAIT, Cut(), REACHED)
    server.on("GET", PATH, machine("stopped", EXIT, START), machine("started", START))
    assert client.wait("app", ID).state == "started"


def test_a_failed_machine_can_still_be_destroyed(
    client: MachinesClient, server: ApiServer, clock: StepClock
) -> None:
    server.on("GET", WAIT, late(clock, 5), {"ok": True, "state": "destroyed"})
    server.on("GET", PATH, machine("failed"), machine("destroyed"))
    assert client.wait("app", ID, "destroyed").state == "destroyed"


# absence


def test_an_unknown_machine_counts_as_destroyed(client: MachinesClient, server: ApiServer) -> None:
    gone = Answer(404, {"error": "not_found: machine not found"})
    server.on("GET", WAIT, gone)
    server.on("GET", PATH, gone)
    found = client.wait("app", ID, "destroyed")
    assert (found.id, found.state) == (ID, "destroyed")


def test_a_new_machine_may_be_unknown_for_a_moment(
    client: MachinesClient, server: ApiServer
) -> None:
    gone = Answer(404, {"error": "not_found: machine not found"})
    server.on("GET", WAIT, gone, gone, REACHED)
    server.on("GET", PATH, gone, gone, machine("started"))
    assert client.wait("app", ID).state == "started"


def test_a_machine_that_stays_unknown_is_not_found(
    client: MachinesClient, server: ApiServer, clock: StepClock
) -> None:
    gone = Answer(404, {"error": "not_found: machine not found"})
    server.on("GET", WAIT, gone)
    server.on("GET", PATH, gone)
    with pytest.raises(NotFound):
        client.wait("app", ID, timeout_s=300)
    assert clock.now <= 1006


def test_a_machine_that_vanishes_is_missed(
    client: MachinesClient, server: ApiServer, clock: StepClock
) -> None:
    server.on("GET", WAIT, late(clock, 5))
    server.on("GET", PATH, machine("starting"), Answer(404, {"error": "machine not found"}))
    with pytest.raises(StateMissed, match="it is destroyed") as caught:
        client.wait("app", ID, timeout_s=300)
    assert caught.value.machine.name == "sbx-01"


# trouble on the way


@pytest.mark.usefixtures("no_back_off")
def test_trouble_of_servers_and_proxies_is_outlived(
    client: MachinesClient, server: ApiServer, clock: StepClock
) -> None:
    trouble: list[Step] = [
        Answer(502, b"<html>"),
        Cut(),
        Reset(),
        Answer(503, b""),
        Answer(504),
        Answer(500),
    ]
    server.on("GET", WAIT, *trouble, *[Answer(429)] * 3, REACHED)
    server.on("GET", PATH, Answer(503), Answer(503), Answer(503), machine("starting"))
    assert client.wait("app", ID, timeout_s=60).state == "started"
    assert clock.now < 1020


@pytest.mark.usefixtures("no_back_off")
def test_trouble_that_lasts_is_in_the_error(client: MachinesClient, server: ApiServer) -> None:
    server.on("GET", WAIT, Answer(503, b"no healthy upstream"))
    server.on("GET", PATH, Answer(503, b"no healthy upstream"))
    with pytest.raises(WaitTimeout, match=r"unknown; last trouble: .*no healthy upstream"):
        client.wait("app", ID, timeout_s=3)


def test_the_answer_may_come_a_little_after_the_poll(
    client: MachinesClient, server: ApiServer
) -> None:
    server.on("GET", WAIT, Answer(200, REACHED, before=lambda: time.sleep(1.2)))
    server.on("GET", PATH, machine("starting"))
    assert client.wait("app", ID, timeout_s=1).state == "started"
    assert polls(server) == [1]


def test_a_server_that_answers_at_once_is_asked_once_a_second(
    client: MachinesClient, server: ApiServer, clock: StepClock
) -> None:
    """Some say 400 when nothing leads to the state; Fly's limit is one wait a second."""
    idle = Answer(400, {"error": "machine is not transitioning to started"})
    server.on("GET", WAIT, idle)
    server.on("GET", PATH, machine("stopped", LAUNCH))
    with pytest.raises(WaitTimeout):
        client.wait("app", ID, timeout_s=5)
    assert clock.slept == [1.0] * 5


def test_a_server_that_wants_more_to_wait_for_a_stop_is_read_instead(
    client: MachinesClient, server: ApiServer
) -> None:
    text = "instance_id required when waiting for stopped machine"
    server.on("GET", WAIT, Answer(400, {"error": text}))
    server.on("GET", PATH, machine("stopping"), machine("stopping"), machine("stopped"))
    assert client.wait("app", ID, "stopped").state == "stopped"


@pytest.mark.parametrize(
    ("status", "kind"), [(400, ApiError), (401, Unauthorized), (403, Unauthorized)]
)
def test_a_refused_wait_is_an_error_at_once(
    client: MachinesClient, server: ApiServer, status: int, kind: type[ApiError]
) -> None:
    server.on("GET", WAIT, Answer(status, {"error": "invalid_argument: no"}))
    server.on("GET", PATH, machine("created"))
    with pytest.raises(kind):
        client.wait("app", ID)
    assert len(server.requests) == 1


@pytest.mark.parametrize("state", ["running", "", "created", []])
def test_a_state_that_cannot_be_waited_for_is_named(
    client: MachinesClient, state: str | list[str]
) -> None:
    with pytest.raises(SettingsError, match="settled, started"):
        client.wait("app", ID, state)


def test_replayed_time_makes_the_same_polls_without_waiting(server: ApiServer) -> None:
    """Replay advances the clock by the time that each recorded answer took."""
    clock = ReplayClock()
    answers = [Answer(408, {"error": "deadline_exceeded: x"}), Answer(200, REACHED)]
    server.on("GET", WAIT, *answers)
    server.on("GET", PATH, machine("created"), machine("started"))

    with MachinesClient(TOKEN, base_url=server.url, clock=clock, pace=False) as client:
        clock.advance(7)
        assert isinstance(client.wait("app", ID, timeout_s=600), Machine)
    assert polls(server) == [60, 60]
    assert clock.monotonic() == 8.0
