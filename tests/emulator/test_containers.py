"""Machines with several containers or several main processes, on an engine that runs them."""

from __future__ import annotations

import base64
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from pytest_flymachines.emulator.launch import EmulatorProcess, launch
from tests.emulator.conftest import App, Fly, Machine, eventually
from tests.emulator.fidelity import shows
from tests.emulator.test_real_engines import is_running

SHARED: dict[str, Any] = {
    "volumes": [{"name": "common", "temp_dir": {"storage_type": "memory", "size_mb": 16}}]
}
MOUNTS = [{"name": "common", "path": "/common"}]
STAY = ["sleep", "1000"]
ONCE = {"policy": "no"}


@pytest.fixture(scope="module")
def emulator() -> Iterator[EmulatorProcess]:
    with launch(engine="bubblewrap") as process:
        yield process


def container(name: str, *command: str, **config: Any) -> dict[str, Any]:
    return {"name": name, "image": "alpine", "exec": list(command or STAY), **config}


def shell(name: str, script: str, **config: Any) -> dict[str, Any]:
    """A container that mounts the common directory."""
    return container(name, "sh", "-c", script, mounts=MOUNTS, **config)


def create(app: App, *containers: dict[str, Any], **config: Any) -> Machine:
    """A machine that needs no image of its own."""
    body = {"config": {**SHARED, "containers": list(containers), **config}}
    return Machine(app, app.fly.ok("POST", app.machines, body)["id"])


def states(machine: Machine) -> dict[str, str]:
    return {item["name"]: item["state"] for item in machine.get().get("containers", ())}


def until(machine: Machine, **wanted: str) -> None:
    eventually(lambda: states(machine) == wanted)


def inside(machine: Machine, name: str, script: str) -> str:
    return str(machine.exec("sh", "-c", script, container=name)["stdout"])


def log_of(machine: Machine, name: str = "watch") -> list[str]:
    """The lines that containers have written in common."""
    return inside(machine, name, "cat /common/log").splitlines()


@shows(
    "containers", "each has image, files and processes of its own; all share the network", "docs"
)
@shows("containers", "`containers` of a machine has each one's name and state", "fly-go")
@shows("POST M/exec", "`container` says where, else it is the first; 404 for an unknown", "fly-go")
@shows("POST M/exec", "`machine` runs it outside of the containers", "fly-go")
def test_what_containers_share(app: App) -> None:
    page = {"guest_path": "/srv/page/index.html", "raw_value": base64.b64encode(b"hi").decode()}
    serve = "cd /srv/page && exec python3 -m http.server -b 127.0.0.1 8000"
    machine = create(app, shell("web", serve, files=[page]), container("side"))
    until(machine, web="started", side="started")
    ask = "import urllib.request as u; print(u.urlopen('http://localhost:8000').read().decode())"
    eventually(lambda: inside(machine, "side", f'python3 -c "{ask}"') == "hi\n")
    assert inside(machine, "side", "ls /srv/page 2>&1; echo $?").endswith("2\n")
    assert "sleep" not in inside(machine, "web", "cat /proc/[0-9]*/cmdline")
    assert "http.server" in machine.exec("sh", "-c", "cat /proc/1/cmdline; ps ax")["stdout"]
    assert machine.exec("ls", "/srv/page", machine=True)["exit_code"] != 0
    commands = [item["command"] for item in app.fly.ok("GET", f"{machine.path}/ps")]
    assert "sleep 1000" in commands
    assert any("http.server" in command for command in commands)
    assert machine.get()["image_ref"]["repository"] == "library/alpine"
    path = f"{machine.path}/exec"
    for body, status in (({"container": "no"}, 404), ({"container": "web", "machine": True}, 400)):
        assert app.fly.error("POST", path, {"command": ["true"], **body})[0] == status


@shows("containers", "env, files, secrets; `env_from` names a field of the machine", "openapi")
@shows("containers", "`secrets`, if any, are the only ones that it has", "openapi")
def test_environment_of_containers(app: App) -> None:
    app.fly.ok("POST", f"{app.path}/secrets", {"values": {"TOKEN": "t", "OTHER": "bw=="}})
    machine = create(
        app,
        container(
            "one",
            env={"A": "1"},
            env_from=[{"env_var": "ME", "field_ref": "id"}],
            secrets=[{"env_var": "RENAMED", "name": "TOKEN"}],
            files=[{"guest_path": "/etc/other", "secret_name": "OTHER"}],
            user="nobody",
        ),
        container("two"),
        env={"ALL": "yes"},
    )
    until(machine, one="started", two="started")
    one, two = (set(inside(machine, name, "env").splitlines()) for name in ("one", "two"))
    own = {"A=1", f"ME={machine.id}", "RENAMED=t"}
    assert own | {"ALL=yes", f"FLY_MACHINE_ID={machine.id}"} <= one
    assert "TOKEN=t" not in one
    assert {"ALL=yes", "TOKEN=t", f"FLY_MACHINE_ID={machine.id}"} <= two
    assert not own & two
    assert inside(machine, "one", "cat /etc/other; stat -c %U /proc/[0-9]*").startswith("o")
    assert "nobody" in inside(machine, "one", "stat -c %U /proc/[0-9]*")


@shows("containers", "`depends_on`: started, healthy, exited_successfully", "docs")
@shows("containers", "`healthchecks` by exec, tcp and http", "docs")
def test_dependencies(app: App) -> None:
    say = "echo {} >> /common/log"
    quick = {"interval": 1, "timeout": 5, "success_threshold": 1}
    serve = "sleep 0.3; python3 -m http.server -b 127.0.0.1 8001 & wait"
    checks = [
        {"name": "file", "exec": {"command": ["test", "-e", "/common/log"]}, **quick},
        {"name": "port", "tcp": {"port": 8001}, **quick},
        {"name": "page", "http": {"port": 8001, "path": "/", "scheme": "http"}, **quick},
    ]
    on = [{"name": "server", "condition": "healthy"}]
    machine = create(
        app,
        shell("watch", "sleep 1000"),
        shell("last", f"{say.format('last')}; sleep 1000", depends_on=on),
        shell("init", f"sleep 0.3; {say.format('init')}", restart=ONCE),
        shell(
            "server",
            f"{say.format('server')}; {serve}",
            depends_on=[
                {"name": "init", "condition": "exited_successfully"},
                {"name": "watch", "condition": "started"},
            ],
            healthchecks=checks,
        ),
    )
    until(machine, watch="started", last="started", init="stopped", server="started")
    assert log_of(machine) == ["init", "server", "last"]
    assert machine.state == "started"


@shows("containers", "the machine ends when all rest, with the first code that is not 0", "guess")
def test_dependency_that_fails(app: App) -> None:
    on = [{"name": "init", "condition": "exited_successfully"}]
    machine = create(
        app,
        shell("main", "true", depends_on=on),
        shell("init", "exit 4", restart=ONCE),
        restart=ONCE,
    )
    machine.wait("stopped")
    assert machine.exits()[0]["exit_event"]["exit_code"] == 4
    assert states(machine) == {"main": "stopped", "init": "stopped"}
    assert app.fly.error("POST", f"{machine.path}/exec", {"cmd": "true"})[0] == 412


@shows("containers", "`restart`: a policy for each; the others go on", "docs")
def test_restart_of_a_container(app: App) -> None:
    machine = create(
        app,
        shell("watch", "sleep 1000"),
        shell(
            "flaky",
            "echo flaky >> /common/log; exit 3",
            restart={"policy": "on-failure", "max_retries": 2},
        ),
        shell("done", "echo done >> /common/log"),
    )
    until(machine, watch="started", flaky="stopped", done="stopped")
    assert sorted(log_of(machine)) == ["done", "flaky", "flaky", "flaky"]
    path = f"{machine.path}/exec"
    body = {"command": ["true"], "container": "done"}
    assert app.fly.error("POST", path, body) == (412, "failed_precondition: container not running")
    assert machine.exits() == []


@shows("containers", "a check with `unhealthy: stop` ends its container when it fails", "openapi")
def test_unhealthy_container(app: App) -> None:
    check = {
        "exec": {"command": ["test", "!", "-e", "/common/sick"]},
        "interval": 1,
        "failure_threshold": 1,
        "unhealthy": "stop",
    }
    machine = create(
        app,
        shell("watch", "sleep 1000"),
        shell(
            "patient",
            "rm -f /common/sick; echo up >> /common/log; exec sleep 1000",
            healthchecks=[check],
        ),
    )
    until(machine, watch="started", patient="started")
    eventually(lambda: log_of(machine) == ["up"])
    inside(machine, "watch", "touch /common/sick")
    eventually(lambda: log_of(machine) == ["up", "up"])


@shows("containers", "`stop` has the signal and the time of each container", "openapi")
def test_stop_of_containers(app: App) -> None:
    volume = app.fly.ok("POST", f"{app.path}/volumes", {"name": "data"})["id"]
    trap = "trap 'echo {0} >> /data/log; exit 0' {0}; : > /data/{0}; while :; do sleep 0.02; done"
    stubborn = "trap '' TERM INT; : > /data/stubborn; while :; do sleep 0.02; done"
    machine = create(
        app,
        container("one", "sh", "-c", trap.format("USR1"), stop={"signal": "SIGUSR1"}),
        container("two", "sh", "-c", trap.format("INT")),
        container("three", "sh", "-c", stubborn, stop={"timeout": "100ms"}),
        mounts=[{"volume": volume, "path": "/data"}],
        restart=ONCE,
    )
    until(machine, one="started", two="started", three="started")
    ready = "cd /data && ls USR1 INT stubborn"
    eventually(lambda: machine.exec("sh", "-c", ready)["exit_code"] == 0)
    machine.post("stop", {"timeout": "60s"})
    machine.wait("stopped")
    exited = machine.exits()[0]["exit_event"]
    assert (exited["exit_code"], exited["requested_stop"]) == (137, True)
    machine.post("start")
    machine.wait("started")
    assert sorted(inside(machine, "one", "cat /data/log").split()) == ["INT", "USR1"]


@shows("containers", "suspend freezes all of them; a restart begins with fresh files", "docs")
def test_suspend_and_restart(app: App) -> None:
    tick = "while :; do echo . >> /tmp/ticks; sleep 0.02; done"
    machine = create(app, shell("clock", tick), container("other"))
    until(machine, clock="started", other="started")
    count = "wc -l < /tmp/ticks"
    eventually(lambda: int(inside(machine, "clock", count) or 0) > 3)
    inside(machine, "other", "touch /tmp/kept")
    machine.post("suspend")
    machine.wait("suspended")
    machine.post("start")
    machine.wait("started")
    before = int(inside(machine, "clock", count))
    eventually(lambda: int(inside(machine, "clock", count)) > before)
    assert machine.exec("ls", "/tmp/kept", container="other")["exit_code"] == 0
    newest = machine.events()[0]["id"]
    machine.post("restart")
    machine.wait("started", from_event_id=newest)
    until(machine, clock="started", other="started")
    assert machine.exec("ls", "/tmp/kept", container="other")["exit_code"] != 0


def test_update_replaces_the_containers(app: App) -> None:
    machine = create(app, container("old"))
    until(machine, old="started")
    body: dict[str, Any] = {"config": {"containers": [container("new"), container("more")]}}
    version = app.fly.ok("POST", machine.path, body)["version"]
    machine.wait("started", version=version)
    until(machine, new="started", more="started")
    body = {"config": {"image": "alpine", "init": {"exec": STAY}}}
    version = app.fly.ok("POST", machine.path, body)["version"]
    machine.wait("started", version=version)
    assert "containers" not in machine.get()
    assert machine.exec("true")["exit_code"] == 0


def test_container_that_cannot_start_is_given_up(app: App) -> None:
    bad = container("bad", user="who-is-this", restart=ONCE)
    machine = create(app, container("good"), bad)
    until(machine, good="started", bad="stopped")
    machine.destroy()


CHECK = {"name": "c", "tcp": {"port": 1}}
BAD: list[tuple[dict[str, Any], str]] = [
    ({"name": ""}, "containers[0].name"),
    ({"name": "a/b"}, "containers[0].name"),
    ({"name": "x" * 64}, "containers[0].name"),
    ({"image": ""}, "containers[0].image"),
    ({"restart": {"policy": "spot-price"}}, "containers[0].restart.policy"),
    ({"stop": {"signal": "SIGWINCH"}}, "containers[0].stop.signal"),
    ({"files": [{"guest_path": "here"}]}, "containers[0].files[0].guest_path"),
    ({"depends_on": [{"name": "b"}]}, "containers[0].depends_on[0].name"),
    (
        {"depends_on": [{"name": "a", "condition": "ended"}]},
        "containers[0].depends_on[0].condition",
    ),
    ({"depends_on": [{"name": "a", "condition": "started"}]}, "containers, depends_on is circular"),
    ({"healthchecks": [{}]}, "containers[0].healthchecks[0]"),
    ({"healthchecks": [{"tcp": {}}]}, "containers[0].healthchecks[0].tcp.port"),
    ({"healthchecks": [{"exec": {}}]}, "containers[0].healthchecks[0].exec.command"),
    (
        {"healthchecks": [{"http": {"port": 1, "scheme": "ftp"}}]},
        "containers[0].healthchecks[0].http.scheme",
    ),
    ({"healthchecks": [{**CHECK, "interval": -1}]}, "containers[0].healthchecks[0].interval"),
    ({"healthchecks": [{**CHECK, "kind": "x"}]}, "containers[0].healthchecks[0].kind"),
    ({"healthchecks": [{**CHECK, "unhealthy": "x"}]}, "containers[0].healthchecks[0].unhealthy"),
    ({"mounts": [{"name": "none", "path": "/a"}]}, "containers[0].mounts[0].name"),
    ({"mounts": [{"name": "common", "path": "a"}]}, "containers[0].mounts[0].path"),
]


@shows("containers", "400 for containers that make no sense; the text names the field", "guess")
@pytest.mark.parametrize(("change", "where"), BAD)
def test_bad_containers_are_refused(app: App, change: dict[str, Any], where: str) -> None:
    body = {"config": {**SHARED, "containers": [{**container("a"), **change}]}}
    status, text = app.fly.error("POST", app.machines, body)
    assert status == 400
    assert text.startswith(f"invalid config.{where}")


def test_bad_sets_of_containers_are_refused(app: App) -> None:
    wait = {"depends_on": [{"name": "b", "condition": "started"}]}
    back = {"depends_on": [{"name": "a", "condition": "healthy"}]}
    for config in (
        {"containers": [container("a"), container("a")]},
        {"containers": [container(f"c{n}") for n in range(11)]},
        {"containers": [container("a", **wait), container("b", **back)]},
        {"containers": [container("a")], "processes": [{"exec": ["true"]}]},
        {"containers": [container("a")], "volumes": [{"name": "v", "image": "alpine"}]},
        {"containers": [container("a")], "volumes": [{"name": "../x"}]},
    ):
        assert app.fly.error("POST", app.machines, {"config": config})[0] == 400


@shows("processes", "several: main processes of one machine, which share its files", "openapi")
@shows("processes", "each has its own command, user, env, secrets", "openapi")
@shows("processes", "the machine ends when one of them does", "init")
def test_several_processes(app: App) -> None:
    app.fly.ok("POST", f"{app.path}/secrets", {"values": {"TOKEN": "t"}})
    tell = 'echo "$NAME ${TOKEN:-none} $(id -un)" > /tmp/$NAME; '
    until_told = "while [ ! -e /tmp/end ]; do sleep 0.02; done; exit 3"
    processes = [
        {"exec": ["sh", "-c", tell + "sleep 1000"], "env": {"NAME": "one"}},
        {
            "entrypoint": ["sh", "-c"],
            "cmd": [tell + until_told],
            "env": {"NAME": "two"},
            "user": "nobody",
            "ignore_app_secrets": True,
        },
    ]
    machine = app.create(processes=processes, restart=ONCE)
    look = "cat /tmp/one /tmp/two"
    wanted = "one t root\ntwo none nobody\n"
    eventually(lambda: machine.exec("sh", "-c", look)["stdout"] == wanted)
    commands = [item["command"] for item in app.fly.ok("GET", f"{machine.path}/ps")]
    assert "sleep 1000" in commands
    # The machine may end, and the exec with it, before its answer is on its way.
    told = app.fly("POST", f"{machine.path}/exec", {"command": ["touch", "/tmp/end"]})
    assert told.status_code in (200, 412), told.text
    machine.wait("stopped")
    assert machine.exits()[0]["exit_event"]["exit_code"] == 3


def test_containers_and_processes_die_with_an_emulator_that_is_killed() -> None:
    mark = f"mark-{os.getpid()}-containers"
    program = ["sh", "-c", f"sleep 1000; : {mark}"]
    with launch(engine="bubblewrap", apps=["killed"]) as emulator:
        app = App(Fly(emulator), "killed")
        create(app, container("a", *program), container("b", *program)).wait("started")
        app.create(processes=[{"exec": program}, {"exec": program}])
        assert is_running(mark)
        os.kill(emulator.pid, signal.SIGKILL)
        app.fly.close()
    eventually(lambda: not is_running(mark))


def test_containers_are_gone_after_destroy_and_come_back_from_disk(tmp_path: Any) -> None:
    with launch(engine="bubblewrap", apps=["kept"], state=tmp_path) as emulator:
        app = App(Fly(emulator), "kept")
        machine = create(app, container("a"), container("b"))
        until(machine, a="started", b="started")
        app.fly.close()
    with launch(engine="bubblewrap", state=tmp_path) as emulator:
        app = App(Fly(emulator), "kept")
        machine = Machine(app, machine.id)
        assert machine.state == "stopped"
        machine.post("start")
        machine.wait("started")
        until(machine, a="started", b="started")
        machine.destroy()
        assert not list((tmp_path / "machines").iterdir())
        app.fly.close()
