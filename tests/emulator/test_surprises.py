"""The surprises of the Machines API: the emulator has them, and our client lives with them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pytest_flymachines.api import MachinesClient, StateMissed
from pytest_flymachines.emulator.launch import EmulatorProcess, launch
from pytest_flymachines.errors import (
    ApiError,
    Conflict,
    NotFound,
    SettingsError,
    WaitTimeout,
)
from pytest_flymachines.machine_config import Identity, machine_config
from pytest_flymachines.spec import SandboxSpec
from pytest_flymachines.sweep import destroy_verified
from pytest_flymachines.volumes import delete_volume
from tests.emulator.conftest import App, Fly, Serve, eventually
from tests.emulator.surprises import surprise

Arm = Callable[[str], int]

STUBBORN = ("sh", "-c", 'trap "" INT; touch ready; while :; do sleep 0.1; done')
KEPT: dict[str, Any] = {"restart": {"policy": "no"}}


def talk(emulator: EmulatorProcess) -> MachinesClient:
    return MachinesClient(emulator.token, base_url=emulator.api_url, pace=False)


@pytest.fixture(scope="module")
def client(emulator: EmulatorProcess) -> Iterator[MachinesClient]:
    with talk(emulator) as api:
        yield api


@pytest.fixture(scope="module")
def lagging(serve: Serve) -> Iterator[tuple[App, MachinesClient]]:
    """An app on a server whose lists lag, and which soon forgets what is destroyed."""
    with (
        serve("--app", "lagging", "--list-delay", "700", destroyed_readable_s=1.0) as emulator,
        talk(emulator) as api,
    ):
        fly = Fly(emulator)
        yield App(fly, "lagging"), api
        fly.close()


def queries(app: App, path: str) -> list[str]:
    """The queries of the requests for a path."""
    lines = app.fly.control.get("/requests").text.splitlines()
    return [entry["query"] for line in lines if (entry := json.loads(line))["path"] == path]


@surprise(1, "tests/e2e/test_faults.py: test_the_next_region_is_tried")
def test_a_machine_may_stay_created(app: App, client: MachinesClient, faults: Arm) -> None:
    faults(f"stuck=created,app={app.name}")
    machine = app.create("sleep", "inf", wait=None)
    with pytest.raises(WaitTimeout, match="destroy it and try another region") as late:
        client.wait(app.name, machine.id, "started", timeout_s=1)
    assert late.value.state == "created"
    assert destroy_verified(client, app.name, machine.id) is None


@surprise(2)
def test_a_start_right_after_a_stop_or_an_update_is_refused(
    app: App, client: MachinesClient
) -> None:
    soon = {"timeout": "500ms"}
    machine = app.create(*STUBBORN, stop_config=soon, **KEPT).ready()
    machine.post("stop")
    status, text = app.fly.error("POST", f"{machine.path}/start")
    assert (status, "machine still active, refusing to start" in text) == (412, True)
    assert client.start_machine(app.name, machine.id).previous_state == "stopped"
    machine.wait("started")
    machine.ready()
    config = {"image": "a", "init": {"exec": list(STUBBORN)}, "stop_config": soon}
    app.fly.ok("POST", machine.path, {"config": config})
    status, text = app.fly.error("POST", f"{machine.path}/start")
    assert (status, "machine getting replaced, refusing to start" in text) == (412, True)
    client.start_machine(app.name, machine.id)
    machine.wait("started")


@surprise(3, "tests/sandbox/test_api_channel.py: test_a_timeout_and_a_signal")
def test_wait_and_exec_end_after_a_minute(app: App, client: MachinesClient) -> None:
    machine = app.create("sleep", "inf")
    assert app.fly.error("GET", f"{machine.path}/wait?timeout=61")[0] == 400
    refused = app.fly.error("POST", f"{machine.path}/exec", {"cmd": "true", "timeout": 61})
    assert refused == (400, "timeout must not exceed 60 seconds")
    client.wait(app.name, machine.id, "started", timeout_s=300)
    assert "timeout=60" in queries(app, f"{machine.path}/wait")[-1]
    with pytest.raises(SettingsError, match="start longer commands detached"):
        client.exec(app.name, machine.id, ["true"], timeout_s=61)


@surprise(4)
def test_a_state_may_have_passed_by_when_a_wait_ends(app: App, client: MachinesClient) -> None:
    machine = app.create("sh", "-c", "exit 3", wait="stopped", **KEPT)
    status, text = app.fly.error("GET", f"{machine.path}/wait?state=started&timeout=1")
    assert (status, text.endswith("started, currently stopped")) == (408, True)
    with pytest.raises(StateMissed) as missed:
        client.wait(app.name, machine.id, "started", timeout_s=2)
    assert missed.value.exit_event is not None
    assert missed.value.exit_event.exit_code == 3
    launched = machine.events()[-1]["id"]
    assert machine.wait("started", from_event_id=launched)["state"] == "started"


@surprise(5)
def test_an_older_server_wants_a_version_to_wait_for_stopped(
    app: App, client: MachinesClient, faults: Arm
) -> None:
    machine = app.create("sleep", "inf", **KEPT)
    version = machine.get()["instance_id"]
    wanted = "instance_id required when waiting for stopped machine"
    faults(f"status=400,path={machine.path}/wait,count=2,body={wanted}")
    machine.post("stop")
    assert client.wait(app.name, machine.id, "stopped", version=version).state == "stopped"
    assert f"version={version}" in queries(app, f"{machine.path}/wait")[-1]
    app.fly.control.delete("/faults").raise_for_status()
    assert client.wait(app.name, machine.id, "stopped").state == "stopped"


@surprise(
    6,
    "tests/api/test_emulator.py: "
    "test_the_largest_exec_is_taken_and_a_larger_one_is_told_from_a_success",
    "tests/sandbox/test_api_channel.py: test_every_request_is_below_the_limit",
)
def test_a_large_exec_is_answered_as_a_success(app: App, client: MachinesClient) -> None:
    machine = app.create("sleep", "inf")
    answer = machine.exec("true", "x" * 17_000)
    assert answer["exit_code"] == 0
    assert answer["stdout"].startswith("Unhandled rejection: Rejection([PayloadTooLarge")
    with pytest.raises(SettingsError, match="Fly takes less than 16384"):
        client.exec(app.name, machine.id, ["true", "x" * 17_000])


@surprise(
    7,
    "tests/sandbox/test_exec.py: test_the_workspace_is_the_default_directory",
    "tests/sandbox/test_exec.py: test_home_is_that_of_the_user",
)
def test_exec_is_root_in_the_root_directory() -> None:
    with launch(engine="bubblewrap", apps=["walls"]) as emulator, talk(emulator) as api:
        config = {"image": "alpine", "init": {"exec": ["sleep", "inf"]}}
        machine = api.create_machine("walls", config)
        api.wait("walls", machine.id)
        said = api.exec("walls", machine.id, ["/bin/sh", "-c", "id -u; pwd"])
        assert said.stdout.split() == ["0", "/"]


@surprise(8, "tests/sandbox/test_api_channel.py: test_a_timeout_and_a_signal")
def test_an_exec_goes_on_after_its_time(app: App, client: MachinesClient) -> None:
    machine = app.create("sleep", "inf")
    script = "sleep 1.5; echo lost; touch went-on"
    with pytest.raises(ApiError, match="deadline_exceeded") as late:
        client.exec(app.name, machine.id, ["sh", "-c", script], timeout_s=1)
    assert late.value.status == 408
    assert late.value.ambiguous
    eventually(lambda: machine.exec("test", "-e", "went-on")["exit_code"] == 0)


@surprise(11)
def test_a_bare_query_key_filters_nothing(app: App, client: MachinesClient) -> None:
    app.create(skip_launch=True, wait="stopped")
    running = app.create("sleep", "inf")
    assert len(app.fly.ok("GET", f"{app.machines}?started")) == 2
    found = client.list_machines(app.name, states=["started"])
    assert [machine.id for machine in found] == [running.id]


@surprise(12, "tests/test_sweep.py: test_a_sweep_asks_the_machine_itself_because_lists_are_old")
def test_lists_lag_behind(lagging: tuple[App, MachinesClient]) -> None:
    app, client = lagging
    made = client.create_machine(app.name, {"image": "alpine"}, name="new", skip_launch=True)
    assert app.fly.ok("GET", app.machines) == []
    assert client.get_machine(app.name, made.id).id == made.id
    found = client.find_machine(app.name, "new", timeout_s=30)
    assert found is not None
    client.destroy_machine(app.name, made.id)
    client.wait(app.name, made.id, "destroyed")
    assert [machine.id for machine in client.list_machines(app.name)] == [made.id]
    assert destroy_verified(client, app.name, made.id) is None


@surprise(
    13,
    "tests/api/test_apps.py: test_a_new_app_is_waited_for_until_it_is_known",
    "tests/api/test_affinity.py: test_calls_for_a_new_app_go_to_the_server_that_made_it",
)
def test_a_new_machine_may_be_unknown(app: App, client: MachinesClient, faults: Arm) -> None:
    machine = app.create("sleep", "inf", wait=None)
    unknown = "body=not_found: machine not found"
    faults(f"status=404,path={machine.path}/wait,count=1,{unknown}")
    faults(f"status=404,path={machine.path},count=1,{unknown}")
    assert client.wait(app.name, machine.id, "started", timeout_s=30).state == "started"


@surprise(14, "tests/e2e/test_faults.py: test_what_passes_is_outlived")
def test_a_repeated_create_meets_the_name_of_the_first(
    app: App, client: MachinesClient, faults: Arm
) -> None:
    faults(f"status=502,when=after,method=POST,path={app.machines},count=1")
    config = {"image": "alpine"}
    with pytest.raises(ApiError) as lost:
        client.create_machine(app.name, config, name="once", skip_launch=True)
    assert lost.value.ambiguous
    assert len(queries(app, app.machines)) == 1
    found = client.find_machine(app.name, "once")
    assert found is not None
    with pytest.raises(Conflict, match=f"unique machine name violation, machine ID {found.id}"):
        client.create_machine(app.name, config, name="once", skip_launch=True)


@surprise(15, "tests/e2e/test_faults.py: test_a_name_that_somebody_else_has")
def test_a_name_is_taken_until_the_destroy_is_over(
    app: App, client: MachinesClient, faults: Arm
) -> None:
    made = client.create_machine(app.name, {"image": "a"}, name="mine", skip_launch=True)
    client.wait(app.name, made.id, "stopped")
    faults(f"stuck=destroying,delay_s=1,app={app.name}")
    client.destroy_machine(app.name, made.id)
    with pytest.raises(Conflict, match="unique machine name violation"):
        client.create_machine(app.name, {"image": "a"}, name="mine", skip_launch=True)
    client.wait(app.name, made.id, "destroyed")
    client.create_machine(app.name, {"image": "a"}, name="mine", skip_launch=True)


@surprise(16)
def test_a_destroyed_machine_can_be_read_for_a_while(lagging: tuple[App, MachinesClient]) -> None:
    app, client = lagging
    made = client.create_machine(app.name, {"image": "alpine"}, skip_launch=True)
    client.wait(app.name, made.id, "stopped")
    client.destroy_machine(app.name, made.id)
    assert client.get_machine(app.name, made.id).state in ("destroying", "destroyed")
    assert client.wait(app.name, made.id, "destroyed").state == "destroyed"

    def forgotten() -> bool:
        try:
            client.get_machine(app.name, made.id)
        except NotFound:
            return True
        return False

    eventually(forgotten)
    assert client.wait(app.name, made.id, "destroyed").state == "destroyed"
    client.destroy_machine(app.name, made.id)


@surprise(17)
def test_a_volume_stays_bound_for_a_while(app: App, client: MachinesClient) -> None:
    volume = client.create_volume(app.name, "data", region="ord", size_gb=1)
    mounts = [{"volume": volume.id, "path": "/data"}]
    machine = app.create("sleep", "inf", mounts=mounts)
    machine.destroy()
    status, text = app.fly.error("DELETE", f"{app.path}/volumes/{volume.id}")
    assert (status, "volume is currently bound to machine" in text) == (412, True)
    delete_volume(client, app.name, volume.id)
    assert client.list_volumes(app.name) == []


@surprise(18, "tests/test_sweep.py: test_a_volume_goes_with_its_machine")
def test_a_volume_outlives_a_machine_that_a_stop_destroys(app: App, client: MachinesClient) -> None:
    volume = client.create_volume(app.name, "data", region="ord", size_gb=1)
    mounts = [{"volume": volume.id, "path": "/data"}]
    machine = app.create("sleep", "inf", mounts=mounts, auto_destroy=True, **KEPT)
    client.stop_machine(app.name, machine.id)
    assert client.wait(app.name, machine.id, "destroyed").state == "destroyed"
    assert [one.id for one in client.list_volumes(app.name)] == [volume.id]
    delete_volume(client, app.name, volume.id)


@surprise(19)
def test_an_update_does_not_start_a_stopped_machine(app: App, client: MachinesClient) -> None:
    machine = app.create(skip_launch=True, wait="stopped")
    config = {"image": "alpine", "init": {"exec": ["sleep", "inf"]}}
    version = client.update_machine(app.name, machine.id, config).instance_id
    assert client.wait(app.name, machine.id, "stopped", version=version).state == "stopped"
    client.start_machine(app.name, machine.id)
    client.wait(app.name, machine.id, "started", version=version)


@surprise(20, "tests/emulator/test_real_engines.py: test_life_of_a_machine")
def test_a_stop_wipes_the_files_and_a_suspend_does_not(app: App, client: MachinesClient) -> None:
    machine = app.create("sleep", "inf", **KEPT)
    machine.exec("touch", "mark")
    client.suspend_machine(app.name, machine.id)
    client.wait(app.name, machine.id, "suspended")
    client.start_machine(app.name, machine.id)
    client.wait(app.name, machine.id, "started")
    assert machine.exec("test", "-e", "mark")["exit_code"] == 0
    client.stop_machine(app.name, machine.id)
    client.wait(app.name, machine.id, "stopped")
    client.start_machine(app.name, machine.id)
    client.wait(app.name, machine.id, "started")
    assert machine.exec("test", "-e", "mark")["exit_code"] == 1


@surprise(21)
def test_a_lease_is_there_to_be_had(app: App, client: MachinesClient) -> None:
    for wait in ("stopped", None):
        machine = app.create("sleep", "inf", skip_launch=wait is not None, wait=wait)
        answer = app.fly("POST", f"{machine.path}/lease?ttl=120")
        assert (answer.status_code, answer.json()["status"]) == (201, "success")
        nonce = answer.json()["data"]["nonce"]
        with pytest.raises(Conflict, match="lease currently held by"):
            client.acquire_lease(app.name, machine.id, ttl_s=10)
        client.release_lease(app.name, machine.id, nonce)


@surprise(22)
def test_what_fly_go_sends_is_understood(app: App, client: MachinesClient) -> None:
    loop = "while :; do sleep 0.1; done"
    machine = app.create("sh", "-c", f"trap 'touch told' USR1; touch ready; {loop}", **KEPT).ready()
    machine.post("signal", {"signal": 10})
    eventually(lambda: machine.exec("test", "-e", "told")["exit_code"] == 0)
    machine.post("stop", {"id": machine.id, "timeout": "0s"})
    assert client.wait(app.name, machine.id, "stopped").state == "stopped"
    client.start_machine(app.name, machine.id)
    client.wait(app.name, machine.id, "started")
    app.fly.ok("DELETE", f"{machine.path}?kill=true")
    assert client.wait(app.name, machine.id, "destroyed").state == "destroyed"


@surprise(23, "tests/api/test_machines.py: test_both_forms_of_the_exit_time_are_read")
def test_exited_at_is_a_text(app: App, client: MachinesClient) -> None:
    machine = app.create("sh", "-c", "exit 1", wait="stopped", **KEPT)
    assert machine.exits()[0]["exit_event"]["exited_at"].endswith("Z")
    read = client.get_machine(app.name, machine.id).exit_event
    assert read is not None
    assert str(read.exited_at).endswith("Z")


@surprise(24)
def test_regions_have_keys_in_capitals(app: App, client: MachinesClient) -> None:
    assert set(app.fly.ok("GET", "/v1/platform/regions")) == {"Regions", "Nearest"}
    assert client.list_regions().nearest == "ord"
    assert "fra" in [region.code for region in client.list_regions().regions]


@surprise(25)
def test_lists_filter_by_metadata(app: App, client: MachinesClient) -> None:
    ours = app.create(skip_launch=True, wait=None, metadata={"run": "r1", "a": "1"})
    app.create(skip_launch=True, wait=None, metadata={"run": "r2", "a": "1"})
    found = app.fly.ok("GET", f"{app.machines}?metadata.run=r1&metadata.a=1")
    assert [machine["id"] for machine in found] == [ours.id]
    found = client.list_machines(app.name, metadata={"run": "r1", "a": "1"})
    assert [machine.id for machine in found] == [ours.id]


@surprise(27, "tests/e2e/test_faults.py: test_an_image_that_was_pushed_just_now_is_waited_for")
def test_an_image_may_be_unknown(app: App, client: MachinesClient, faults: Arm) -> None:
    unknown = "failed to get manifest registry.fly.io/a:1: MANIFEST_UNKNOWN"
    faults(f"status=400,method=POST,path={app.machines},count=1,body={unknown}")
    with pytest.raises(ApiError, match="MANIFEST_UNKNOWN") as refused:
        client.create_machine(app.name, {"image": "registry.fly.io/a:1"}, skip_launch=True)
    assert not refused.value.ambiguous
    client.create_machine(app.name, {"image": "registry.fly.io/a:1"}, skip_launch=True)


def test_a_sandbox_is_never_stopped_by_the_proxy() -> None:
    spec = SandboxSpec(app="a", ports=(8080,))
    identity = Identity(name="n", metadata={}, ttl_s=60)
    services = machine_config(spec, identity, agent_token="t")["services"]
    assert {(service["autostop"], service["autostart"]) for service in services} == {("off", False)}


@surprise(33)
def test_an_app_has_no_address_until_one_is_given(app: App, client: MachinesClient) -> None:
    assert app.fly.ok("GET", f"{app.path}/ip_assignments") == {"ips": []}
    assert client.list_ips(app.name) == []
    address = client.assign_ip(app.name, "shared_v4")
    assert [one.ip for one in client.list_ips(app.name)] == [address.ip]


@surprise(34)
def test_a_machine_with_a_schedule_is_not_started_by_us(app: App, client: MachinesClient) -> None:
    machine = app.create("true", schedule="monthly", wait="stopped")
    assert app.fly.error("POST", f"{machine.path}/start")[0] == 412
    with pytest.raises(Conflict, match="schedule"):
        client.start_machine(app.name, machine.id)
