"""Hosts that fail, and the standby machines that take over."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.emulator.conftest import App, Machine, eventually
from tests.emulator.fidelity import shows
from tests.emulator.surprises import surprise


@pytest.fixture
def lose_host(app: App) -> Iterator[Callable[[Machine], Callable[[], None]]]:
    """Takes a machine's host away; what it gives brings it back."""

    def lose(machine: Machine) -> Callable[[], None]:
        number = app.fly.fault(f"host-failure,machine={machine.id}")
        eventually(lambda: machine.get()["host_status"] == "unreachable")

        def repair() -> None:
            assert app.fly.control.delete(f"/faults/{number}").status_code == 204

        return repair

    yield lose
    app.fly.control.delete("/faults")


def back(machine: Machine, repair: Callable[[], None]) -> None:
    """Bring a host back, and wait until its machine is started again."""
    newest = machine.events()[0]["id"]
    repair()
    machine.wait("started", from_event_id=newest)


@surprise(
    32, "tests/api/test_machines.py: test_a_machine_on_a_host_that_does_not_answer_has_no_config"
)
@shows(
    "faults",
    "`host-failure`: the machine keeps its state, has no config and a `host_status` of "
    "`unreachable`, and nothing but reads works; removing the fault starts it anew",
    "fly-go",
)
def test_host_failure(app: App, lose_host: Callable[[Machine], Callable[[], None]]) -> None:
    machine = app.create("sleep", "inf", wait="started", metadata={"kept": "yes"})
    count = len(machine.events())
    repair = lose_host(machine)
    shown = machine.get()
    assert (shown["state"], shown["config"]) == ("started", None)
    assert shown["incomplete_config"]["metadata"] == {"kept": "yes"}
    assert len(machine.events()) == count
    body = {"command": ["true"]}
    for path in ("exec", "stop", "start", "suspend", "metadata"):
        method = "PUT" if path == "metadata" else "POST"
        status, text = app.fly.error(
            method, f"{machine.path}/{path}", body if path == "exec" else None
        )
        assert (status, "does not answer" in text) == (503, True), path
    assert app.fly.error("DELETE", f"{machine.path}?force=true")[0] == 503
    listed = app.fly.ok("GET", app.machines)
    assert [item["host_status"] for item in listed] == ["unreachable"]
    back(machine, repair)
    assert machine.get()["config"]["metadata"] == {"kept": "yes"}
    assert machine.exec("true")["exit_code"] == 0
    exited = machine.exits()[0]["exit_event"]
    assert (exited["requested_stop"], exited["restarting"]) == (False, True)


@shows(
    "faults",
    "a machine starts when the host of one of its `standbys` fails",
    "docs",
)
@shows("faults", "it is stopped when all of those hosts are back", "guess")
def test_standby(app: App, lose_host: Callable[[Machine], Callable[[], None]]) -> None:
    watched = [app.create("sleep", "inf", wait="started") for _ in range(2)]
    ids = [machine.id for machine in watched]
    standby = app.create("sleep", "inf", skip_launch=True, wait="stopped", standbys=ids)
    other = ["d8d9e1b2c45678"]
    unrelated = app.create("sleep", "inf", skip_launch=True, wait="stopped", standbys=other)
    watched[0].post("stop")
    watched[0].wait("stopped")
    assert standby.state == "stopped", "a stop is no failure"
    repairs = [lose_host(watched[1])]
    standby.wait("started")
    assert standby.events()[1]["source"] == "flyd"
    repairs.append(lose_host(watched[0]))
    back(watched[1], repairs[0])
    assert standby.state == "started"
    repairs[1]()
    standby.wait("stopped")
    assert watched[0].state == "stopped", "it was not to run"
    assert unrelated.state == "stopped"


@shows("volumes", "those of a host that does not answer are a 503 for all but reads", "guess")
def test_a_volume_is_on_the_host_of_its_machine(
    app: App, lose_host: Callable[[Machine], Callable[[], None]]
) -> None:
    volume = app.fly.ok("POST", f"{app.path}/volumes", {"name": "data"})
    path = f"{app.path}/volumes/{volume['id']}"
    machine = app.create("sleep", "inf", mounts=[{"volume": volume["id"], "path": "/data"}])
    repair = lose_host(machine)
    assert app.fly.ok("GET", path)["host_status"] == "unreachable"
    assert app.fly.ok("GET", f"{app.path}/volumes")[0]["host_status"] == "unreachable"
    for method, place, body in (
        ("PUT", "/extend", {"size_gb": 9}),
        ("PUT", "", {"snapshot_retention": 9}),
        ("POST", "/snapshots", None),
        ("DELETE", "", None),
    ):
        status, text = app.fly.error(method, f"{path}{place}", body)
        assert (status, "does not answer" in text) == (503, True), (method, place)
    repair()
    assert app.fly.ok("GET", path)["host_status"] == "ok"


def test_standby_that_somebody_has_started_stays(
    app: App, lose_host: Callable[[Machine], Callable[[], None]]
) -> None:
    machine = app.create("sleep", "inf", wait="started")
    standby = app.create("sleep", "inf", wait="started", standbys=[machine.id])
    back(machine, lose_host(machine))
    assert standby.state == "started"


def test_host_fails_after_a_time(app: App) -> None:
    machine = app.create("sleep", "inf", skip_launch=True, wait="stopped")
    app.fly.fault(f"host-failure=0.2,machine={machine.id},count=1")
    eventually(lambda: machine.get()["host_status"] == "unreachable")
    app.fly.control.delete("/faults")
    assert machine.get()["host_status"] == "ok"
    assert machine.state == "stopped"


def test_visitors_are_not_sent_to_a_host_that_does_not_answer(
    app: App, lose_host: Callable[[Machine], Callable[[], None]]
) -> None:
    services = [{"internal_port": 8080, "ports": [{"port": 80, "handlers": ["http"]}]}]
    machine = app.create("sleep", "inf", wait="started", services=services)
    listing = eventually(lambda: app.fly.control.get("/services").json().get(app.name))
    assert list(listing) == ["80"]
    lose_host(machine)
    eventually(lambda: app.name not in app.fly.control.get("/services").json())
