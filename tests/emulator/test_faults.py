from __future__ import annotations

import json
import socket
from collections.abc import Callable

import httpx
import pytest

from pytest_flymachines.emulator.faults import Cause, FaultError, Faults, parse_fault
from tests.emulator.conftest import App, Fly, Serve, eventually
from tests.emulator.fidelity import shows

Arm = Callable[[str], int]


@shows("faults", "`status`: an error answer before, or after, the request took effect", "ours")
def test_status(app: App, faults: Arm) -> None:
    path = f"path={app.machines},method=POST"
    faults(f"status=429,{path},count=1,body=slow down")
    body = {"name": "maybe", "config": {"image": "alpine"}, "skip_launch": True}
    assert app.fly.error("POST", app.machines, body) == (429, "slow down")
    assert app.fly.ok("GET", app.machines) == []
    faults(f"status=502,{path},when=after,skip=1,count=1")
    app.fly.ok("POST", app.machines, {**body, "name": "first"})
    assert app.fly.error("POST", app.machines, body)[0] == 502
    names = [item["name"] for item in app.fly.ok("GET", app.machines)]
    assert names == ["first", "maybe"]


@shows("faults", "`lost`: the work is done and the answer never comes", "ours")
@shows("faults", "`reset`: a TCP reset before or after the effect", "ours")
@pytest.mark.parametrize(
    ("spec", "effect"), [("lost", True), ("reset=before", False), ("reset=after", True)]
)
def test_lost_answers(app: App, faults: Arm, spec: str, effect: bool) -> None:
    faults(f"{spec},path={app.machines},method=POST,count=1")
    body = {"name": "maybe", "config": {"image": "alpine"}, "skip_launch": True}
    url = httpx.URL(app.fly.emulator.api_url)
    with socket.create_connection((url.host, url.port)) as connection:
        content = json.dumps(body)
        head = f"POST {app.machines} HTTP/1.1\r\nHost: localhost\r\n"
        head += f"Authorization: Bearer {app.fly.emulator.token}\r\n"
        connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n{content}".encode())
        if spec == "lost":
            assert connection.recv(1) == b""
        else:
            with pytest.raises(ConnectionResetError):
                connection.recv(1)
    assert [item["name"] for item in app.fly.ok("GET", app.machines)] == ["maybe"] * effect
    assert app.fly("POST", app.machines, body).status_code == (409 if effect else 200)


@shows("faults", "`delay`: the answer waits, before or after the request took effect", "ours")
@pytest.mark.parametrize(("when", "effect"), [("before", False), ("after", True)])
def test_delay(app: App, faults: Arm, when: str, effect: bool) -> None:
    faults(f"delay=30,path={app.machines},method=POST,count=1,when={when}")
    body = {"name": "slow", "config": {"image": "alpine"}, "skip_launch": True}
    with pytest.raises(httpx.ReadTimeout):
        app.fly("POST", app.machines, body, timeout=1.0)
    assert [item["name"] for item in app.fly.ok("GET", app.machines)] == ["slow"] * effect


@shows("faults", "`slow-boot`: a machine stays in `starting` for a time", "ours")
def test_slow_boot(app: App, faults: Arm) -> None:
    faults(f"slow-boot=1.2,app={app.name}")
    machine = app.create("sleep", "inf", wait=None)
    status, text = app.fly.error("GET", f"{machine.path}/wait?timeout=1")
    assert (status, text.endswith("currently starting")) == (408, True)
    machine.wait("started")


@shows("faults", "`capacity`: 422 at create, 409 at start, restart and update", "ours")
def test_capacity(app: App, faults: Arm) -> None:
    machine = app.create("sleep", "inf", skip_launch=True, wait="stopped")
    number = faults(f"capacity,app={app.name}")
    response = app.fly("POST", app.machines, {"config": {"image": "alpine"}})
    assert response.status_code == 422
    assert response.json() == {
        "error": "could not find a candidate host",
        "status": "insufficient_capacity",
    }
    for path, body in (("/start", None), ("/restart", None), ("", {"config": {"image": "a"}})):
        status, text = app.fly.error("POST", f"{machine.path}{path}", body)
        assert (status, "could not reserve resource for machine" in text) == (409, True)
    app.fly.control.delete(f"/faults/{number}").raise_for_status()
    machine.post("start")
    machine.wait("started")


@shows("faults", "`image-pull`: a new machine ends in `launch_failed` and is destroyed", "ours")
def test_image_pull_failure(app: App, faults: Arm) -> None:
    faults(f"image-pull,app={app.name}")
    machine = app.create("sleep", "inf", wait="destroyed")
    assert [event["type"] for event in machine.events()] == ["destroy", "destroy", "launch"]


@shows("faults", "`death`: a machine dies after its start, or when a request comes to it", "ours")
def test_death(app: App, faults: Arm) -> None:
    faults(f"death=0.1,app={app.name},count=1")
    machine = app.create("sleep", "inf", wait="stopped", restart={"policy": "no"})
    assert machine.exits()[0]["exit_event"]["exit_code"] == 137
    machine.post("start")
    machine.wait("started")
    faults(f"death=0.2,path={machine.path}/exec,count=1")
    status, text = app.fly.error("POST", f"{machine.path}/exec", {"cmd": "sleep 20"})
    assert (status, text) == (412, "failed_precondition: exec request failed: EOF")


@shows("faults", "`stuck`: a machine stays in a state for ever, or for a time", "ours")
def test_stuck(app: App, faults: Arm) -> None:
    faults(f"stuck=created,machine=first,app={app.name}")
    first = app.create("sleep", "inf", wait=None, name="first")
    app.create("sleep", "inf", name="second")
    assert first.state == "created"
    first.destroy()
    faults(f"stuck=stopping,delay_s=0.3,app={app.name}")
    third = app.create("sleep", "inf")
    third.post("stop")
    assert third.state == "stopping"
    third.wait("stopped")


UPDATE = {"config": {"image": "alpine", "init": {"exec": ["sleep", "inf"]}}}


@pytest.mark.parametrize(
    ("state", "method", "action", "body"),
    [
        ("starting", "POST", "/restart", None),
        ("starting", "POST", "", UPDATE),
        ("stopping", "POST", "/stop", None),
        ("suspending", "POST", "/suspend", None),
        ("restarting", "POST", "/restart", None),
        ("replacing", "POST", "", UPDATE),
        ("destroying", "DELETE", "?force=true", None),
    ],
)
def test_every_state_on_the_way_of_a_machine_that_runs_can_hold_it(
    app: App, faults: Arm, state: str, method: str, action: str, body: object
) -> None:
    machine = app.create("sleep", "inf")
    number = faults(f"stuck={state},machine={machine.id}")
    app.fly.ok(method, f"{machine.path}{action}", body)
    eventually(lambda: app.fly.control.get("/faults").json()[0]["hits"])
    assert machine.state == state
    app.fly.control.delete(f"/faults/{number}").raise_for_status()
    if state != "destroying":
        machine.destroy()


def test_machine_can_be_stuck_in_starting_whatever_it_was_before(app: App, faults: Arm) -> None:
    fresh = app.create("sleep", "inf", wait=None, skip_launch=True)
    fresh.wait("stopped")
    suspended = app.create("sleep", "inf")
    suspended.post("suspend")
    suspended.wait("suspended")
    faults(f"stuck=starting,app={app.name}")
    for machine in (fresh, suspended):
        machine.post("start")
    new = app.create("sleep", "inf", wait=None)
    eventually(lambda: app.fly.control.get("/faults").json()[0]["hits"] == 3)
    assert [machine.state for machine in (fresh, suspended, new)] == ["starting"] * 3
    for machine in (fresh, suspended, new):
        machine.destroy()


def test_machine_can_be_stuck_after_a_crash(app: App, faults: Arm) -> None:
    faults(f"stuck=restarting,app={app.name}")
    machine = app.create("false", wait=None, restart={"policy": "always"})
    eventually(lambda: machine.state == "restarting")
    assert machine.exits()[0]["exit_event"]["exit_code"] == 1
    machine.destroy()


def test_faults_that_strike_boots_strike_every_kind_of_boot(app: App, faults: Arm) -> None:
    machine = app.create("sleep", "inf")
    faults(f"slow-boot=0.3,machine={machine.id}")
    machine.post("restart")
    machine.wait("started")
    machine.post("stop")
    machine.wait("stopped")
    machine.post("start")
    machine.wait("started")
    app.fly.ok("POST", machine.path, UPDATE)
    machine.wait("started")
    [fault] = app.fly.control.get("/faults").json()
    assert fault["hits"] == 3


@shows("faults", "`image-pull`: an updated machine ends in `failed`, and can be mended", "ours")
def test_image_of_an_update_cannot_be_pulled(app: App, faults: Arm) -> None:
    machine = app.create("sleep", "inf")
    faults(f"image-pull,app={app.name},count=1")
    machine.post("stop")
    machine.wait("stopped")
    machine.post("start")
    machine.wait("started")  # its image is there already
    app.fly.ok("POST", machine.path, UPDATE)
    machine.wait("failed")
    assert "unable to pull image" in str(machine.events()[0])
    app.fly.ok("POST", machine.path, UPDATE)
    machine.wait("started")


def test_death_finds_machines_that_run_already(app: App, faults: Arm) -> None:
    other = app.create("sleep", "inf")
    machine = app.create("sleep", "inf", restart={"policy": "no"})
    faults(f"death=0.1,machine={machine.id}")
    machine.wait("stopped")
    assert machine.exits()[0]["exit_event"]["exit_code"] == 137
    assert other.state == "started"


@shows("faults", "method and path choose by the request that set a machine going", "ours")
def test_faults_of_machines_by_method_and_path(app: App, faults: Arm) -> None:
    faults(f"capacity,method=POST,path={app.machines}/*/start")
    faults(f"stuck=starting,path={app.machines}/*/restart")
    machine = app.create("sleep", "inf")
    machine.post("stop")
    machine.wait("stopped")
    assert app.fly("POST", f"{machine.path}/start").status_code == 409
    machine.post("restart")
    eventually(lambda: app.fly.control.get("/faults").json()[1]["hits"])
    assert machine.state == "starting"
    machine.destroy()


def test_restart_by_policy_is_no_requests_doing(app: App, faults: Arm) -> None:
    faults(f"stuck=starting,path={app.machines}*,method=POST,skip=1")  # that of the create
    machine = app.create("false", wait=None, restart={"policy": "always"})
    eventually(lambda: len(machine.exits()) > 2)
    assert app.fly.control.get("/faults").json()[0]["hits"] == 0
    machine.destroy()


def test_faults_of_requests_by_app_and_machine(app: App, faults: Arm) -> None:
    one, two = (app.create("sleep", "inf", name=name) for name in ("one", "two"))
    faults(f"status=500,app={app.name},machine=on?")
    assert app.fly("GET", one.path).status_code == 500
    assert app.fly("GET", two.path).status_code == 200
    assert app.fly("GET", app.machines).status_code == 200
    faults(f"status=502,app={app.name},count=1")
    assert app.fly("GET", app.path).status_code == 502
    assert app.fly("GET", app.path).status_code == 200


@shows("faults", "`probability` with a seed: the same requests are hit in every run", "ours")
def test_probability_is_repeatable() -> None:
    def hits(seed: int) -> list[bool]:
        faults = Faults([parse_fault(f"status=500,probability=.5,seed={seed}")])
        asked = Cause("GET", "/v1/apps")
        return [bool(faults.of_request(asked, "", None)) for _ in range(50)]

    assert hits(1) == hits(1)
    assert hits(1) != hits(2)
    assert 10 < sum(hits(1)) < 40


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("explode", "none of status, delay"),
        ("capacity=3", "takes no value"),
        ("status=200", "not between 400 and 599"),
        ("status=500,count", "not key=value"),
        ("status=500,count=many", "count"),
        ("status=500,colour=red", "'colour' is none of method, path"),
        ("delay=-1", "not between 0 and 86400"),
        ("status=500,probability=2", "not between 0 and 1"),
        ("status=500,probability=nan", "not between 0 and 1"),
        ("status=500,count=0", "count at least 1"),
        ("status=500,skip=-1", "skip is at least 0"),
        ("status=500,method=FETCH", "'FETCH' is none of .* DELETE"),
        ("stuck=started", "'started' is none of created, starting"),
        ("slow-boot", "slow-boot=2"),
        ("delay", "delay=2"),
        ("capacity,status=500", "status means nothing for capacity"),
        ("lost,when=after", "when means nothing for lost"),
    ],
)
def test_bad_faults_are_refused(spec: str, text: str) -> None:
    with pytest.raises(FaultError, match=text):
        parse_fault(spec)


def test_faults_over_the_control_port(fly: Fly) -> None:
    control = fly.control
    made = control.post("/faults", json={"kind": "status", "status": 503, "path": "/v1/apps/q"})
    assert made.status_code == 201
    assert fly("GET", "/v1/apps/q").status_code == 503
    [listed] = control.get("/faults").json()
    assert (listed["id"], listed["hits"]) == (made.json()["id"], 1)
    assert control.post("/faults", json={"kind": "nonsense"}).status_code == 400
    assert control.post("/faults", json={"spec": "nonsense"}).status_code == 400
    assert control.post("/faults", content="[").status_code == 400
    assert control.delete("/faults/99").status_code == 404
    assert control.delete("/faults").status_code == 204
    assert control.get("/faults").json() == []


@shows("faults", "option: a round trip is added to every answer", "ours")
def test_faults_and_latency_of_the_command_line(serve: Serve) -> None:
    with serve("--fault", "status=500,path=/v1/platform/*,count=1", "--latency", "80") as emulator:
        fly = Fly(emulator)
        assert fly("GET", "/v1/platform/regions").status_code == 500
        assert fly("GET", "/v1/platform/regions").status_code == 200
        lines = fly.control.get("/requests").text.splitlines()
        assert all(json.loads(line)["duration_ms"] >= 80 for line in lines)
        fly.close()
