from __future__ import annotations

import json
import socket
from collections.abc import Callable

import httpx
import pytest

from pytest_flymachines.emulator.faults import FaultError, Faults, parse_fault
from tests.emulator.conftest import App, Fly, Serve
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


@shows("faults", "`probability` with a seed: the same requests are hit in every run", "ours")
def test_probability_is_repeatable() -> None:
    def hits(seed: int) -> list[bool]:
        faults = Faults([parse_fault(f"status=500,probability=0.5,seed={seed}")])
        return [bool(faults.of_request("GET", "/v1/apps")) for _ in range(50)]

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
        ("status=500,colour=red", "colour"),
        ("delay=-1", "not between 0 and 86400"),
        ("status=500,probability=2", "not between 0 and 1"),
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
