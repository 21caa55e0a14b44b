"""The client against the emulator: two readings of Fly's documents, made apart."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pytest_flymachines._http import Http, PoolTransport
from pytest_flymachines.api import Machine, MachinesClient, StateMissed, build_transport
from pytest_flymachines.api.execution import EXEC_BODY_BYTES
from pytest_flymachines.emulator.launch import EmulatorProcess, launch
from pytest_flymachines.errors import (
    ApiError,
    ApiUnreachable,
    CapacityError,
    Conflict,
    NotFound,
    Unauthorized,
    WaitTimeout,
)
from tests.api.server import wait_until

APP = "client-app"
NUMBERS = itertools.count(1)
SLEEP = {"exec": ["/bin/sleep", "inf"]}

Make = Callable[..., Machine]
Inject = Callable[[str], None]


@pytest.fixture(scope="module")
def emulator() -> Iterator[EmulatorProcess]:
    with launch(apps=[APP]) as emulator:
        yield emulator


@pytest.fixture
def client(emulator: EmulatorProcess) -> Iterator[MachinesClient]:
    with MachinesClient(emulator.token, base_url=emulator.api_url, pace=False) as client:
        yield client


@pytest.fixture
def make(client: MachinesClient) -> Iterator[Make]:
    """Create machines that are destroyed at the end of the test."""
    made: list[Machine] = []

    def make(wait: bool = True, **config: Any) -> Machine:
        full = {"image": "debian:12", "init": SLEEP, "restart": {"policy": "no"}, **config}
        machine = client.create_machine(APP, full, name=f"client-{next(NUMBERS)}")
        made.append(machine)
        if wait:
            machine = client.wait(APP, machine.id, "started", version=machine.instance_id)
        return machine

    yield make
    for machine in made:
        client.destroy_machine(APP, machine.id)


@pytest.fixture
def inject(emulator: EmulatorProcess) -> Iterator[Inject]:
    """Put a fault in force for this test."""
    headers = {"authorization": f"Bearer {emulator.token}"}
    with PoolTransport() as pool:
        control = Http(pool, emulator.control_url, headers)

        def inject(spec: str) -> None:
            answer = control.request("POST", "/faults", json={"spec": spec})
            assert answer.status_code == 201, answer.text

        yield inject
        control.request("DELETE", "/faults")


def test_a_machine_lives_and_dies(client: MachinesClient, make: Make) -> None:
    machine = make()
    assert machine.state == "started"
    client.stop_machine(APP, machine.id, signal="SIGKILL")
    stopped = client.wait(APP, machine.id, "stopped")
    assert stopped.exit_event is not None
    assert stopped.exit_event.requested_stop
    newest = stopped.newest_event_id
    assert client.start_machine(APP, machine.id).previous_state == "stopped"
    client.wait(APP, machine.id, "started", from_event_id=newest)
    client.restart_machine(APP, machine.id, signal="SIGKILL")
    client.wait(APP, machine.id, "started", timeout_s=20)
    client.destroy_machine(APP, machine.id)
    assert client.wait(APP, machine.id, "destroyed").state == "destroyed"
    client.destroy_machine(APP, machine.id)


def test_a_command_runs(client: MachinesClient, make: Make) -> None:
    machine = make(env={"GREETING": "hi"})
    ended = client.exec(APP, machine.id, ["/bin/sh", "-c", "echo $GREETING ü; pwd; exit 3"])
    assert (ended.exit_code, ended.stdout) == (3, "hi ü\n/\n")
    killed = client.exec(APP, machine.id, ["/bin/sh", "-c", "kill -9 $$"], timeout_s=10)
    assert killed.exit_code == 137
    with pytest.raises(ApiError, match="deadline_exceeded") as caught:
        client.exec(APP, machine.id, ["/bin/sleep", "30"], timeout_s=1)
    assert caught.value.status == 408


def test_the_largest_exec_is_taken_and_a_larger_one_is_told_from_a_success(
    client: MachinesClient, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = make()
    fits = EXEC_BODY_BYTES - 1 - len('{"command":["/bin/echo",""]}')
    assert len(client.exec(APP, machine.id, ["/bin/echo", "x" * fits]).stdout) == fits + 1
    monkeypatch.setattr("pytest_flymachines.api.execution.EXEC_BODY_BYTES", 10**6)
    with pytest.raises(ApiError, match="Rejection"):
        client.exec(APP, machine.id, ["/bin/echo", "x" * 20_000])


def test_an_exec_in_a_stopped_machine_is_a_conflict(client: MachinesClient, make: Make) -> None:
    machine = make()
    client.stop_machine(APP, machine.id, signal="SIGKILL")
    client.wait(APP, machine.id, "stopped")
    with pytest.raises(Conflict, match="not running"):
        client.exec(APP, machine.id, ["true"])


def test_a_machine_that_ends_at_once_misses_its_start(client: MachinesClient, make: Make) -> None:
    machine = make(wait=False, init={"exec": ["/bin/sh", "-c", "exit 7"]})
    client.wait(APP, machine.id, "settled", version=machine.instance_id)
    client.wait(APP, machine.id, "stopped", version=machine.instance_id)
    with pytest.raises(StateMissed) as caught:
        client.wait(APP, machine.id, "started", timeout_s=2, version=machine.instance_id)
    assert caught.value.exit_event is not None
    assert caught.value.exit_event.exit_code == 7


def test_a_suspended_machine_goes_on(client: MachinesClient, make: Make) -> None:
    machine = make()
    client.suspend_machine(APP, machine.id)
    client.wait(APP, machine.id, "suspended")
    assert client.start_machine(APP, machine.id).previous_state == "suspended"
    assert client.wait(APP, machine.id, "started").instance_id == machine.instance_id


def test_an_update_makes_a_version(client: MachinesClient, make: Make) -> None:
    machine = make()
    assert machine.config is not None
    changed = {**machine.config, "env": {"NEW": "1"}, "stop_config": {"signal": "SIGKILL"}}
    updated = client.update_machine(APP, machine.id, changed, current_version=machine.instance_id)
    assert updated.instance_id != machine.instance_id
    client.wait(APP, machine.id, "started", version=updated.instance_id, timeout_s=30)
    assert client.exec(APP, machine.id, ["/bin/sh", "-c", "echo $NEW"]).stdout == "1\n"
    versions = [version.version for version in client.list_versions(APP, machine.id)]
    assert {machine.instance_id, updated.instance_id} <= set(versions)
    with pytest.raises(Conflict):
        client.update_machine(APP, machine.id, changed, current_version=machine.instance_id)


def test_metadata_is_kept_found_and_removed(client: MachinesClient, make: Make) -> None:
    machine = make(metadata={"run": "r1"})
    client.set_metadata(APP, machine.id, "team/env", "a b")
    client.update_metadata(APP, machine.id, {"run": "r2", "more": "x"})
    assert client.get_metadata_value(APP, machine.id, "team/env") == "a b"
    assert [m.id for m in client.list_machines(APP, metadata={"run": "r2"})] == [machine.id]
    assert client.list_machines(APP, metadata={"run": "r1"}) == []
    client.delete_metadata(APP, machine.id, "team/env")
    assert client.get_metadata(APP, machine.id) == {"run": "r2", "more": "x"}
    with pytest.raises(NotFound):
        client.get_metadata_value(APP, machine.id, "team/env")


def test_a_lease_keeps_others_off(client: MachinesClient, make: Make) -> None:
    machine = make()
    assert client.find_lease(APP, machine.id) is None
    lease = client.acquire_lease(APP, machine.id, ttl_s=60, description="tests")
    found = client.find_lease(APP, machine.id)
    assert found is not None
    assert found.owner == lease.owner
    with pytest.raises(Conflict, match="lease"):
        client.stop_machine(APP, machine.id)
    assert client.refresh_lease(APP, machine.id, lease.nonce, ttl_s=90).nonce == lease.nonce
    client.cordon_machine(APP, machine.id, nonce=lease.nonce)
    client.uncordon_machine(APP, machine.id, nonce=lease.nonce)
    client.release_lease(APP, machine.id, lease.nonce)
    client.release_lease(APP, machine.id, lease.nonce)


def test_lists_are_filtered(client: MachinesClient, make: Make) -> None:
    machine = make(wait=False)
    client.wait(APP, machine.id, "started")
    assert machine.id in [m.id for m in client.list_machines(APP, states=["started"])]
    assert machine.id not in [m.id for m in client.list_machines(APP, states=["stopped"])]
    assert client.list_machines(APP, region="nrt") == []
    found = client.find_machine(APP, machine.name)
    assert found is not None
    assert found.id == machine.id


def test_a_taken_name_names_the_machine_that_has_it(client: MachinesClient, make: Make) -> None:
    machine = make(wait=False)
    with pytest.raises(Conflict, match=machine.id):
        client.create_machine(APP, {"image": "debian:12"}, name=machine.name)


def test_events_are_listed_newest_first(client: MachinesClient, make: Make) -> None:
    machine = make()
    events = client.list_events(APP, machine.id, limit=10)
    assert [event.type for event in events][-1] == "launch"
    assert [event.id for event in events] == sorted((e.id for e in events), reverse=True)


def test_a_signal_reaches_the_main_process(client: MachinesClient, make: Make) -> None:
    machine = make(
        init={"exec": ["/bin/sh", "-c", "trap 'exit 9' USR1; while :; do sleep .1; done"]}
    )
    client.signal_machine(APP, machine.id, "SIGUSR1")
    ended = client.wait(APP, machine.id, "stopped").exit_event
    assert ended is not None
    assert ended.exit_code == 9


def test_apps_and_addresses(client: MachinesClient) -> None:
    app = client.create_app("client-second", "personal")
    assert client.get_app("client-second").id == app.id
    with pytest.raises(Conflict):
        client.create_app("client-second", "personal")
    assert "client-second" in [one.name for one in client.list_apps("personal")]
    address = client.assign_ip("client-second", "shared_v4")
    assert [one.ip for one in client.list_ips("client-second")] == [address.ip]
    client.delete_ip("client-second", address.ip)
    assert client.list_ips("client-second") == []
    client.delete_app("client-second", force=True)
    with pytest.raises(NotFound):
        client.get_app("client-second")


def test_volumes(client: MachinesClient, make: Make) -> None:
    volume = client.create_volume(APP, "data", region="ord", size_gb=1)
    assert client.get_volume(APP, volume.id).size_gb == 1
    machine = make(mounts=[{"volume": volume.id, "path": "/data"}])
    assert client.get_volume(APP, volume.id).attached_machine_id == machine.id
    with pytest.raises(Conflict, match="bound"):
        client.delete_volume(APP, volume.id)
    assert client.extend_volume(APP, volume.id, 2)[0].size_gb == 2
    client.destroy_machine(APP, machine.id)
    client.wait(APP, machine.id, "destroyed")
    wait_until(lambda: _deleted(client, volume.id), timeout_s=60)
    assert volume.id not in [one.id for one in client.list_volumes(APP)]


def _deleted(client: MachinesClient, volume_id: str) -> bool:
    """Whether the bond with the destroyed machine has ended."""
    try:
        client.delete_volume(APP, volume_id)
    except Conflict:
        return False
    return True


def test_regions(client: MachinesClient) -> None:
    regions = client.list_regions()
    assert regions.nearest in [region.code for region in regions.regions]


def test_what_is_not_there_is_not_found(client: MachinesClient) -> None:
    for read in (
        lambda: client.get_machine(APP, "d5683210c7968e"),
        lambda: client.list_machines("no-such-app"),
        lambda: client.get_volume(APP, "vol_000000000000000"),
    ):
        with pytest.raises(NotFound):
            read()
    client.destroy_machine(APP, "d5683210c7968e")


def test_a_wrong_token_is_unauthorized(emulator: EmulatorProcess) -> None:
    with (
        MachinesClient("wrong", base_url=emulator.api_url) as client,
        pytest.raises(Unauthorized),
    ):
        client.list_machines(APP)


def test_a_bad_config_says_what_is_wrong(client: MachinesClient) -> None:
    guest = {"cpu_kind": "shared", "cpus": 3, "memory_mb": 256}
    with pytest.raises(ApiError, match="cpus"):
        client.create_machine(APP, {"image": "debian:12", "guest": guest})


# bad days


def test_a_create_whose_answer_is_lost_is_found_by_name(
    client: MachinesClient, inject: Inject
) -> None:
    inject("lost,method=POST,path=/v1/apps/*/machines,count=1")
    with pytest.raises(ApiUnreachable) as caught:
        client.create_machine(APP, {"image": "debian:12", "init": SLEEP}, name="client-lost")
    assert caught.value.ambiguous
    found = client.find_machine(APP, "client-lost", timeout_s=5)
    assert found is not None
    client.destroy_machine(APP, found.id)


@pytest.mark.parametrize("kind", ["status=503", "status=429", "status=500", "reset=before"])
@pytest.mark.usefixtures("no_back_off")
def test_reads_outlive_a_bad_moment(client: MachinesClient, inject: Inject, kind: str) -> None:
    inject(f"{kind},method=GET,path=/v1/apps/*,count=2")
    assert client.get_app(APP).name == APP


@pytest.mark.usefixtures("no_back_off")
def test_a_wait_outlives_a_bad_moment(client: MachinesClient, make: Make, inject: Inject) -> None:
    machine = make(wait=False)
    inject("reset=before,method=GET,path=*/wait,count=1")
    inject("status=503,method=GET,path=*/wait,count=1")
    assert client.wait(APP, machine.id, "started", timeout_s=30).state == "started"


def test_a_machine_that_stays_created_is_a_wait_timeout(
    client: MachinesClient, make: Make, inject: Inject
) -> None:
    inject("stuck=created")
    machine = make(wait=False)
    with pytest.raises(WaitTimeout, match="created") as caught:
        client.wait(APP, machine.id, "started", timeout_s=1)
    assert caught.value.state == "created"


def test_a_full_region_is_a_capacity_error(
    client: MachinesClient, make: Make, inject: Inject
) -> None:
    inject("capacity")
    with pytest.raises(CapacityError):
        make(wait=False)


def test_a_start_right_after_a_stop_succeeds(client: MachinesClient, make: Make) -> None:
    machine = make()
    client.stop_machine(APP, machine.id, signal="SIGKILL")
    client.wait(APP, machine.id, "stopped")
    client.start_machine(APP, machine.id)
    client.wait(APP, machine.id, "started", timeout_s=20)


def test_a_paced_client_meets_no_rate_limit() -> None:
    """Fly's limits are on; without retries, each 429 would be an error."""
    with launch(apps=[APP], rate_limits=True) as emulator:
        transport = build_transport(PoolTransport(), pace=True)
        client = MachinesClient(emulator.token, base_url=emulator.api_url, transport=transport)
        machine = client.create_machine(APP, {"image": "debian:12", "init": SLEEP})
        client.wait(APP, machine.id)
        transport._retry_s = 0.0  # type: ignore[attr-defined]
        for _ in range(5):
            client.exec(APP, machine.id, ["/bin/true"])
        for _ in range(14):
            client.get_machine(APP, machine.id)
        transport.close()
