from __future__ import annotations

import threading

import pytest

from tests.emulator.conftest import App, Fly, Serve
from tests.emulator.fidelity import shows

RANGE = (
    "invalid_argument: invalid WaitMachineRequest.Timeout: value must be inside range [1s, 1m0s]"
)


@shows("GET M/wait", "answers at once when the machine is already in that state", "docs")
@shows("GET M/wait", "answers with state, version and the id of the event", "openapi")
def test_state_that_is_there_already(app: App) -> None:
    machine = app.create("sleep", "inf")
    newest = machine.events()[0]
    reached = machine.wait("started")
    assert reached["event_id"] == newest["id"]
    assert reached["version"] == machine.get()["version"]
    assert app.fly.ok("GET", f"{machine.path}/wait")["state"] == "started"


@shows("GET M/wait", "408 names the states that were asked for and the present one", "seen")
def test_timeout(app: App) -> None:
    machine = app.create("sleep", "inf")
    query = "state=stopped&state=suspended&timeout=1"
    assert app.fly.error("GET", f"{machine.path}/wait?{query}") == (
        408,
        (
            "deadline_exceeded: machine failed to reach desired state, stopped, suspended, "
            "currently started"
        ),
    )


@shows(
    "GET M/wait",
    "400 for a timeout outside of 1 to 60 seconds, or a state that it does not know",
    "seen",
)
@pytest.mark.parametrize("timeout", ["0", "61", "-1", "3600"])
def test_timeout_is_bounded(app: App, timeout: str) -> None:
    machine = app.create("sleep", "inf", skip_launch=True, wait=None)
    path = f"{machine.path}/wait"
    assert app.fly.error("GET", path, params={"timeout": timeout}) == (400, RANGE)
    assert app.fly.error("GET", path, params={"timeout": "60s"})[0] == 400
    assert app.fly.error("GET", path, params={"state": "created"})[0] == 400
    assert app.fly.error("GET", f"{app.machines}/00000000000000/wait")[0] == 404


@shows(
    "GET M/wait", "several states, repeated or in a comma list; any one ends the wait", "openapi"
)
@shows("GET M/wait", "`settled` is any state at rest", "guess")
@pytest.mark.parametrize(
    "query", ["state=stopped&state=suspended", "state=stopped,suspended", "state=settled"]
)
def test_any_of_several_states(app: App, query: str) -> None:
    machine = app.create("sleep", "inf")
    machine.post("suspend")
    assert app.fly.ok("GET", f"{machine.path}/wait?{query}")["state"] in ("suspended", "stopped")
    machine.wait("suspended")


@shows("GET M/wait", "a state that is left again at once still ends the wait", "ours")
def test_passing_state_is_seen(app: App) -> None:
    machine = app.create("true", skip_launch=True, wait="stopped", restart={"policy": "no"})
    newest = machine.wait("stopped")["event_id"]
    waiter = threading.Thread(target=machine.wait, args=("started",))
    waiter.start()
    machine.post("start")
    waiter.join()
    machine.wait("stopped", from_event_id=newest)


@shows("GET M/wait", "`from_event_id` counts only what came after that event", "openapi")
def test_from_event_id(app: App) -> None:
    machine = app.create("sleep", "inf")
    machine.post("stop")
    stopped = machine.wait("stopped")["event_id"]
    path = f"{machine.path}/wait"
    query = {"state": "stopped", "timeout": 1, "from_event_id": stopped}
    assert app.fly.error("GET", path, params=query)[0] == 408
    machine.post("start")
    machine.wait("started")
    machine.post("stop")
    machine.wait("stopped", from_event_id=stopped)
    launch = machine.events()[-1]["id"]
    # It has passed through started since, and says so.
    assert machine.wait("started", from_event_id=launch)["state"] == "started"
    assert machine.state == "stopped"


@shows(
    "GET M/wait",
    "`version`, or the older `instance_id`: only in that version of the config",
    "openapi",
)
@shows("GET M/wait", "a version that is past: 408 at once with `currently replaced`", "flyctl")
@pytest.mark.parametrize("name", ["version", "instance_id"])
def test_version(app: App, name: str) -> None:
    machine = app.create("sleep", "inf")
    old = machine.get()
    new = app.fly.ok("POST", machine.path, {"config": old["config"]})
    assert machine.wait("started", **{name: new["version"]})["version"] == new["version"]
    status, text = app.fly.error(
        "GET", f"{machine.path}/wait", params={"state": "stopped", name: old["version"]}
    )
    assert status == 408
    assert text.endswith("currently replaced")


@shows(
    "GET M/wait",
    "`destroyed` is seen while it happens; 404 when the machine is forgotten",
    "flyctl",
)
def test_destroyed(serve: Serve) -> None:
    with serve("--app", "gone", destroyed_readable_s=0.0) as emulator:
        fly = Fly(emulator)
        machine = App(fly, "gone").create("sleep", "inf")
        fly.fault("stuck=destroying,delay_s=0.3")
        fly.ok("DELETE", f"{machine.path}?force=true")
        assert machine.wait("destroyed")["state"] == "destroyed"
        assert fly.error("GET", machine.path)[0] == 404
        assert fly.error("GET", f"{machine.path}/wait?state=destroyed")[0] == 404
        fly.close()
