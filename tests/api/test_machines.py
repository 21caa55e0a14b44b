from __future__ import annotations

from typing import Any

import pytest

from pytest_flymachines.api import Machine, MachinesClient
from pytest_flymachines.errors import ApiError, CapacityError, Conflict, NotFound, SettingsError
from tests.api.samples import EXIT, ID, LAUNCH, PATH, START, VERSION, event, machine
from tests.api.server import Answer, ApiServer, Cut, StepClock

MACHINES = "/v1/apps/app/machines"


def refusal(text: str, status: int = 412) -> Answer:
    return Answer(status, {"error": text})


# create and update


def test_a_config_is_sent_as_it_is(client: MachinesClient, server: ApiServer) -> None:
    """Whatever the API knows today or tomorrow, explicit nulls included."""
    server.on("POST", MACHINES, machine("created", LAUNCH))
    config = {
        "image": "debian:12",
        "services": [{"internal_port": 80, "autostop": "suspend", "force_instance_key": None}],
        "unheard_of": {"x": [1, 2.5, None, True]},
        "mounts": [{"volume": "vol_1", "path": "/data"}],
    }
    made = client.create_machine("app", config, name="sbx-01", region="fra,ord")
    assert server.requests[0].json == {"config": config, "name": "sbx-01", "region": "fra,ord"}
    assert (made.id, made.state, made.instance_id) == (ID, "created", VERSION)


def test_options_of_a_create_have_their_wire_names(
    client: MachinesClient, server: ApiServer
) -> None:
    server.on("POST", MACHINES, machine("created", nonce="5c35f65c9f95"))
    made = client.create_machine(
        "app",
        {"image": "x"},
        skip_launch=True,
        skip_service_registration=True,
        lease_ttl_s=30,
        skip_secrets=True,
        min_secrets_version=4,
    )
    assert server.requests[0].json == {
        "config": {"image": "x"},
        "skip_launch": True,
        "skip_service_registration": True,
        "lease_ttl": 30,
        "skip_secrets": True,
        "min_secrets_version": 4,
    }
    assert made.nonce == "5c35f65c9f95"


def test_a_create_that_failed_in_an_unknown_way_is_sent_once_and_found_by_name(
    client: MachinesClient, server: ApiServer, clock: StepClock
) -> None:
    """Its answer is lost, and the list lags behind."""
    other = machine("started", id="other", name="sbx-02")
    server.on("POST", MACHINES, Cut())
    server.on("GET", MACHINES, [], [other], [other, machine("created", LAUNCH)])
    with pytest.raises(Exception, match="no answer"):
        client.create_machine("app", {"image": "x"}, name="sbx-01")
    found = client.find_machine("app", "sbx-01", timeout_s=10)
    assert found is not None
    assert found.id == ID
    assert len(server.calls("POST", MACHINES)) == 1
    assert clock.slept == [1.0, 1.0]


def test_a_name_that_is_not_there_is_not_found(client: MachinesClient, server: ApiServer) -> None:
    server.on("GET", MACHINES, [machine("destroyed")])
    assert client.find_machine("app", "sbx-01") is None


def test_a_taken_name_is_a_conflict(client: MachinesClient, server: ApiServer) -> None:
    text = (
        f"already_exists: unique machine name violation, machine ID {ID} already exists with "
        'name "n"'
    )
    server.on("POST", MACHINES, refusal(text, 409))
    with pytest.raises(Conflict, match=ID):
        client.create_machine("app", {"image": "x"}, name="n")


def test_an_update_sends_the_whole_config_version_and_nonce(
    client: MachinesClient, server: ApiServer
) -> None:
    server.on("POST", PATH, machine("replacing"))
    client.update_machine(
        "app", ID, {"image": "y"}, current_version=VERSION, nonce="5c35", skip_launch=True
    )
    (seen,) = server.requests
    assert seen.json == {"config": {"image": "y"}, "current_version": VERSION, "skip_launch": True}
    assert seen.headers["fly-machine-lease-nonce"] == "5c35"


def test_a_config_that_was_read_can_be_sent_back(client: MachinesClient, server: ApiServer) -> None:
    server.on("GET", PATH, machine("started"))
    server.on("POST", PATH, machine("started"))
    config = client.get_machine("app", ID).config
    assert config is not None
    client.update_machine("app", ID, config)
    assert server.requests[1].json["config"] == machine("started")["config"]


# reading


def test_a_machine_is_read_with_its_events(client: MachinesClient, server: ApiServer) -> None:
    server.on("GET", PATH, Answer(200, machine("stopped", EXIT, START, LAUNCH), chunked=True))
    read = client.get_machine("app", ID)
    assert (read.name, read.region, read.image_ref.tag) == ("sbx-01", "fra", "3.12-slim")
    assert read.metadata == {"run": "r1"}
    assert [e.type for e in read.events] == ["exit", "start", "launch"]
    assert read.newest_event_id == EXIT["id"]
    assert read.exit_event is not None
    assert read.exit_event.exit_code == 1
    assert str(read.exit_event) == "exit code 1"


@pytest.mark.parametrize(
    "request_body",
    [
        {"exit_event": {"oom_killed": True, "requested_stop": False}},
        {"MonitorEvent": {"exit_event": {"oom_killed": True}}, "exit_event": None},
        {"MonitorEvent": {"exit_event": None}, "exit_event": {"oom_killed": True}},
    ],
)
def test_an_exit_event_is_found_in_both_places_and_misses_its_zeros(
    client: MachinesClient, server: ApiServer, request_body: dict[str, Any]
) -> None:
    exited = event("exit", "stopped", 3, **request_body)
    server.on("GET", PATH, machine("stopped", exited, START))
    found = client.get_machine("app", ID).exit_event
    assert found is not None
    assert (found.exit_code, found.oom_killed) == (0, True)
    assert str(found) == "exit code 0 (oom_killed)"


@pytest.mark.parametrize("exited_at", ["2026-07-30T12:02:10.299Z", 1785412930299])
def test_both_forms_of_the_exit_time_are_read(
    client: MachinesClient, server: ApiServer, exited_at: object
) -> None:
    exited = event("exit", "stopped", 3, exit_event={"exited_at": exited_at})
    server.on("GET", PATH, machine("stopped", exited))
    found = client.get_machine("app", ID).exit_event
    assert found is not None
    assert found.exited_at == exited_at


def test_a_machine_on_a_host_that_does_not_answer_has_no_config(
    client: MachinesClient, server: ApiServer
) -> None:
    partial = {"image": "x", "metadata": {"run": "r1"}}
    body = machine(
        "started", config=None, incomplete_config=partial, host_status="unreachable", events=None
    )
    server.on("GET", PATH, body)
    read = client.get_machine("app", ID)
    assert (read.config, read.host_status, read.events) == (None, "unreachable", [])
    assert read.metadata == {"run": "r1"}


def test_the_least_that_may_come_is_read(client: MachinesClient, server: ApiServer) -> None:
    server.on("GET", PATH, {"id": ID, "config": {"metadata": None}, "image_ref": None})
    read = client.get_machine("app", ID)
    assert (read.metadata, read.exit_event, read.newest_event_id) == ({}, None, None)


# listing


def test_filters_are_sent(client: MachinesClient, server: ApiServer) -> None:
    server.on("GET", MACHINES, [])
    client.list_machines(
        "app",
        metadata={"run": "r1", "owner": "me & you"},
        states=("started", "stopped"),
        region="fra",
        include_deleted=True,
    )
    client.list_machines("app")
    assert server.requests[0].query == {
        "metadata.run": ["r1"],
        "metadata.owner": ["me & you"],
        "state": ["started,stopped"],
        "region": ["fra"],
        "include_deleted": ["true"],
    }
    assert server.requests[1].query == {}


def test_filters_hold_although_a_server_ignores_them(
    client: MachinesClient, server: ApiServer
) -> None:
    """A sweep destroys what it lists."""
    hidden = machine("started", id="hidden", config=None)
    other = machine("started", id="other", config={"image": "x", "metadata": {"run": "r2"}})
    bare = machine("started", id="bare", config={"image": "x"})
    stopped = machine("stopped", id="stopped")
    server.on("GET", MACHINES, [hidden, other, bare, stopped, machine("started")])
    listed = client.list_machines("app", metadata={"run": "r1"}, states=("started",))
    assert [m.id for m in listed] == ["hidden", ID]


def test_a_state_that_the_api_cannot_filter_by_is_filtered_here(
    client: MachinesClient, server: ApiServer
) -> None:
    server.on("GET", MACHINES, [machine("failed"), machine("started", id="other")])
    assert [m.id for m in client.list_machines("app", states=["failed"])] == [ID]
    assert server.requests[0].query == {}


def test_events_and_versions_are_listed(client: MachinesClient, server: ApiServer) -> None:
    server.on("GET", f"{PATH}/events", [EXIT, START, LAUNCH])
    server.on("GET", f"{PATH}/versions", [{"version": VERSION, "user_config": {"image": None}}])
    assert [e.type for e in client.list_events("app", ID, limit=50)] == ["exit", "start", "launch"]
    assert server.requests[0].query == {"limit": ["50"]}
    (version,) = client.list_versions("app", ID)
    assert (version.version, version.user_config) == (VERSION, {"image": None})


# start, stop and the rest


def test_a_start_says_what_was_before(client: MachinesClient, server: ApiServer) -> None:
    body = {"previous_state": "stopped", "migrated": True, "new_host": "7d"}
    server.on("POST", f"{PATH}/start", body)
    started = client.start_machine("app", ID, nonce="5c35")
    assert (started.previous_state, started.migrated, started.new_host) == ("stopped", True, "7d")
    assert server.requests[0].headers["fly-machine-lease-nonce"] == "5c35"


@pytest.mark.parametrize(
    "text",
    [
        "failed_precondition: unable to start machine from current state: 'created'",
        "failed_precondition: machine still active, refusing to start",
        "failed_precondition: machine getting replaced, refusing to start",
    ],
)
def test_a_start_too_soon_is_tried_again(
    client: MachinesClient, server: ApiServer, clock: StepClock, text: str
) -> None:
    started = {"previous_state": "stopped"}
    server.on("POST", f"{PATH}/start", refusal(text), refusal(text), started)
    assert client.start_machine("app", ID).previous_state == "stopped"
    assert clock.slept == [1.0, 1.0]


def test_a_start_that_stays_refused_gives_up(
    client: MachinesClient, server: ApiServer, clock: StepClock
) -> None:
    server.on("POST", f"{PATH}/start", refusal("machine still active, refusing to start"))
    with pytest.raises(Conflict, match="still active"):
        client.start_machine("app", ID, retry_s=5)
    assert clock.now == 1005.0


@pytest.mark.parametrize(
    "text",
    ["aborted: machine still attempting to start", "machine still starting", "already started"],
)
def test_a_start_under_way_is_a_start(client: MachinesClient, server: ApiServer, text: str) -> None:
    server.on("POST", f"{PATH}/start", refusal(text, 409))
    assert client.start_machine("app", ID).previous_state == "starting"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("machine ID x lease currently held by y, expires at 2026-05-14T10:41:08Z", Conflict),
        ("aborted: could not reserve resource for machine: insufficient memory", CapacityError),
    ],
)
def test_other_refusals_of_a_start_are_final(
    client: MachinesClient, server: ApiServer, clock: StepClock, text: str, kind: type[ApiError]
) -> None:
    server.on("POST", f"{PATH}/start", refusal(text, 409))
    with pytest.raises(kind):
        client.start_machine("app", ID)
    assert clock.slept == []


def test_a_start_that_answers_an_error_with_200_is_an_error(
    client: MachinesClient, server: ApiServer
) -> None:
    server.on("POST", f"{PATH}/start", {"status": "error", "message": "no such kernel"})
    with pytest.raises(ApiError, match="no such kernel"):
        client.start_machine("app", ID)


def test_a_stop_sends_only_what_is_given(client: MachinesClient, server: ApiServer) -> None:
    """Fly's own client always sends a timeout; nobody knows what 0 means."""
    server.on("POST", f"{PATH}/stop", {"ok": True})
    client.stop_machine("app", ID)
    client.stop_machine("app", ID, signal="SIGTERM", timeout_s=90)
    client.stop_machine("app", ID, signal=9, timeout_s=0.5)
    bodies = [request.body for request in server.requests]
    assert bodies == [
        b"",
        b'{"signal":"SIGTERM","timeout":"90s"}',
        b'{"signal":"SIGKILL","timeout":"0.5s"}',
    ]


def test_a_restart_has_its_options_in_the_query(client: MachinesClient, server: ApiServer) -> None:
    server.on("POST", f"{PATH}/restart", {"ok": True})
    client.restart_machine("app", ID, signal="SIGINT", timeout_s=10, force_stop=True)
    client.restart_machine("app", ID)
    assert server.requests[0].query == {
        "signal": ["SIGINT"],
        "timeout": ["10s"],
        "force_stop": ["true"],
    }
    assert server.requests[1].query == {}


@pytest.mark.parametrize("signal", ["SIGUSR1", 10])
def test_a_signal_is_sent_by_name(
    client: MachinesClient, server: ApiServer, signal: str | int
) -> None:
    server.on("POST", f"{PATH}/signal", {"ok": True})
    client.signal_machine("app", ID, signal)
    assert server.requests[0].json == {"signal": "SIGUSR1"}


@pytest.mark.parametrize("signal", ["TERM", "", 0, 999])
def test_an_unknown_signal_is_named(client: MachinesClient, signal: str | int) -> None:
    with pytest.raises(SettingsError, match=f"signal={signal!r}"):
        client.signal_machine("app", ID, signal)


@pytest.mark.parametrize("action", ["suspend", "cordon", "uncordon"])
def test_plain_actions_carry_the_nonce(
    client: MachinesClient, server: ApiServer, action: str
) -> None:
    server.on("POST", f"{PATH}/{action}", {"ok": True})
    getattr(client, f"{action}_machine")("app", ID, nonce="5c35")
    (seen,) = server.requests
    assert (seen.body, seen.headers["fly-machine-lease-nonce"]) == (b"", "5c35")


def test_a_destroy_forces_unless_told(client: MachinesClient, server: ApiServer) -> None:
    server.on("DELETE", PATH, {"ok": True})
    client.destroy_machine("app", ID)
    client.destroy_machine("app", ID, force=False, nonce="5c35")
    assert [request.query for request in server.requests] == [{"force": ["true"]}, {}]
    assert server.requests[1].headers["fly-machine-lease-nonce"] == "5c35"


@pytest.mark.usefixtures("no_back_off")
def test_a_destroy_is_repeated_until_it_is_known_to_be_gone(
    client: MachinesClient, server: ApiServer
) -> None:
    """A machine that is left costs money, and a second destroy does no harm."""
    gone = Answer(404, {"error": "not_found: machine not found"})
    server.on("DELETE", PATH, Answer(503, b""), Cut(), gone)
    client.destroy_machine("app", ID)
    assert len(server.requests) == 3


@pytest.mark.parametrize("text", ['Could not find App "app"', ""])
def test_a_destroy_at_a_wrong_address_is_no_success(
    client: MachinesClient, server: ApiServer, text: str
) -> None:
    if text:
        server.on("DELETE", PATH, Answer(404, {"error": text}))
    with pytest.raises(NotFound):
        client.destroy_machine("app", ID)


def test_a_destroy_of_a_running_machine_without_force_is_a_conflict(
    client: MachinesClient, server: ApiServer
) -> None:
    text = "failed_precondition: unable to destroy machine, not currently stopped, suspended"
    server.on("DELETE", PATH, refusal(text))
    with pytest.raises(Conflict, match="unable to destroy"):
        client.destroy_machine("app", ID, force=False)


def test_names_are_escaped_in_paths(client: MachinesClient, server: ApiServer) -> None:
    with pytest.raises(NotFound):
        client.get_machine("my app/x", "a?b")
    assert server.requests[0].path == "/v1/apps/my%20app%2Fx/machines/a%3Fb"


def test_a_machine_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Machine(id="x").state = "started"  # type: ignore[misc]
