from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pytest_flymachines.emulator.config import MachineConfig
from pytest_flymachines.emulator.launch import EmulatorProcess
from pytest_flymachines.emulator.lifecycle import Life
from tests.emulator.conftest import App, Fly, Machine, Serve, eventually
from tests.emulator.fidelity import shows

STUBBORN = ("sh", "-c", "trap '' INT TERM; touch ready; while :; do sleep 0.05; done")
Faults = Callable[[str], int]


@pytest.fixture(scope="module")
def emulator(serve: Serve) -> Iterator[EmulatorProcess]:
    """Policy restarts follow each other quickly."""
    with serve(restart_backoff_s=0.01, restart_backoff_max_s=0.02) as process:
        yield process


@pytest.mark.parametrize(
    ("asked_s", "waits_s"), [(1_000_000, 300), (301, 300), (300, 300), (299, 299), (None, 5)]
)
def test_no_program_has_more_than_300_s_to_stop(asked_s: float | None, waits_s: float) -> None:
    machine = SimpleNamespace(config=MachineConfig())
    flyd = SimpleNamespace(timings=SimpleNamespace(stop_timeout_s=5.0))
    life = cast("Life", SimpleNamespace(machine=machine, _flyd=flyd))
    assert Life._how_to_stop(life, None, asked_s) == (signal.SIGINT, waits_s)


@shows("POST M/stop", "SIGINT by default; the exit event says that it was requested", "docs")
@shows("POST M/start", "answers with the state before and does not wait", "docs")
def test_stop_and_start(app: App) -> None:
    machine = app.create("sleep", "inf")
    version = machine.get()["instance_id"]
    machine.post("stop")
    machine.wait("stopped")
    [exited] = machine.exits()
    assert exited["exit_event"]["exit_code"] == 128 + signal.SIGINT
    assert exited["exit_event"]["requested_stop"] is True
    assert exited["restart_count"] == 0
    machine.post("stop")
    assert machine.state == "stopped"
    answer = machine.post("start")
    assert answer == {"previous_state": "stopped", "migrated": False, "new_host": ""}
    machine.wait("started")
    assert machine.get()["instance_id"] == version
    assert [(event["type"], event["status"], event["source"]) for event in machine.events()] == [
        ("start", "started", "flyd"),
        ("start", "starting", "user"),
        ("exit", "stopped", "flyd"),
        ("stop", "stopping", "user"),
        ("start", "started", "flyd"),
        ("launch", "created", "user"),
    ]


@shows("POST M/stop", "`signal` and `timeout` of the body go before `stop_config`", "guess")
@shows("POST M/stop", "SIGKILL when the timeout is over", "docs")
@shows("POST M/stop", 'fly-go\'s body (`id`, `timeout: "0s"`) means: as configured', "fly-go")
def test_how_to_stop(app: App) -> None:
    config: dict[str, Any] = {"stop_config": {"signal": "SIGTERM", "timeout": "200ms"}}
    machine = app.create("sleep", "inf", **config)
    machine.post("stop", {"id": machine.id, "timeout": "0s"})
    machine.wait("stopped")
    assert machine.exits()[0]["exit_event"]["exit_code"] == 143
    machine.post("start")
    machine.wait("started")
    machine.post("stop", {"signal": "SIGUSR1"})
    machine.wait("stopped", version=machine.get()["version"])
    assert machine.exits()[0]["exit_event"]["exit_code"] == 128 + signal.SIGUSR1
    stubborn = app.create(*STUBBORN, **config).ready()
    stubborn.post("stop")
    stubborn.wait("stopped")
    assert stubborn.exits()[0]["exit_event"]["exit_code"] == 137
    assert stubborn.exits()[0]["exit_event"]["signal"] == 9


def test_how_long_a_stop_may_take(serve: Any) -> None:
    """What is waited for would not be there in time by what goes after it."""
    with serve("--app", "stops", stop_timeout_s=300.0) as emulator:
        fly = Fly(emulator)
        for config, body in (("200ms", {}), ("300s", {"timeout": "200ms"})):
            stop_config = {"signal": "SIGTERM", "timeout": config}
            machine = App(fly, "stops").create(*STUBBORN, stop_config=stop_config).ready()
            machine.post("stop", body)
            machine.wait("stopped")
        fly.close()


@shows(
    "POST M/stop",
    "400 for a signal that it does not take, and for wrong types in Go's words",
    "seen",
)
def test_bad_stop_is_refused(app: App) -> None:
    machine = app.create("sleep", "inf")
    path = f"{machine.path}/stop"
    assert app.fly.error("POST", path, {"signal": "SIGSEGV"})[0] == 400
    assert app.fly.error("POST", path, []) == (
        400,
        "json: cannot unmarshal array into Go value of type main.stopRequest",
    )
    assert app.fly.error("POST", path, {"timeout": "1 minute"})[0] == 400
    assert machine.state == "started"


@shows("POST M/signal", "by name or, as fly-go sends it, by number; 400 for others", "fly-go")
def test_signal(app: App) -> None:
    program = "trap 'echo hup >> got' HUP; touch ready; while :; do sleep 0.05; done"
    machine = app.create("sh", "-c", program).ready()
    for count, given in enumerate(("SIGHUP", 1), 1):
        machine.post("signal", {"signal": given})
        eventually(partial(_has, machine, "got", "hup\n" * count))
    for bad in ("SIGWINCH", 64, "nonsense", ""):
        assert app.fly.error("POST", f"{machine.path}/signal", {"signal": bad})[0] == 400
    machine.post("signal", {"signal": 9})
    eventually(lambda: [item["exit_event"]["signal"] for item in machine.exits()] == [9])
    machine.destroy()
    assert app.fly.error("POST", f"{machine.path}/signal", {"signal": 9})[0] == 404


def _has(machine: Machine, file: str, content: str) -> bool:
    return bool(machine.exec("cat", file)["stdout"] == content)


@shows("POST M/suspend", "freezes the processes and keeps files and memory; start resumes", "docs")
@shows("POST M/suspend", "412 unless started; a suspended machine stays so", "guess")
def test_suspend_and_resume(app: App) -> None:
    machine = app.create("sh", "-c", "while :; do echo . >> ticks; sleep 0.02; done")
    machine.exec("touch", "kept")
    machine.post("suspend")
    machine.wait("suspended")
    machine.post("suspend")
    assert app.fly.error("POST", f"{machine.path}/exec", {"command": ["true"]})[0] == 412
    assert app.fly.error("POST", f"{machine.path}/signal", {"signal": 9})[0] == 412
    assert machine.post("start")["previous_state"] == "suspended"
    machine.wait("started")
    assert machine.exec("ls", "kept")["exit_code"] == 0
    kinds = [(event["type"], event["status"]) for event in machine.events()]
    assert kinds[:4] == [
        ("start", "started"),
        ("start", "starting"),
        ("suspend", "suspended"),
        ("suspend", "suspending"),
    ]
    machine.post("stop")
    machine.wait("stopped")
    assert app.fly.error("POST", f"{machine.path}/suspend")[0] == 412


@shows("POST M/suspend", "412 with swap, a schedule or a GPU", "docs")
def test_suspend_is_refused_with_swap(app: App) -> None:
    machine = app.create(wait="started", init={"exec": ["sleep", "inf"], "swap_size_mb": 512})
    assert app.fly.error("POST", f"{machine.path}/suspend") == (
        412,
        "failed_precondition: unable to suspend machine with swap",
    )


@shows("POST M/stop", "a suspended machine loses its snapshot and its files", "docs")
def test_stop_while_suspended(app: App) -> None:
    machine = app.create("sleep", "inf")
    machine.exec("touch", "kept")
    machine.post("suspend")
    machine.wait("suspended")
    machine.post("stop")
    machine.wait("stopped")
    machine.post("start")
    machine.wait("started")
    assert machine.exec("ls", "kept")["exit_code"] != 0


@shows("POST M/restart", "ends and boots again, same version; a stopped machine is started", "docs")
@shows(
    "POST M/restart", "`timeout` is a Go duration or seconds; `force_stop` kills at once", "openapi"
)
def test_restart(app: App) -> None:
    machine = app.create(*STUBBORN).ready()
    version = machine.get()["instance_id"]
    newest = machine.events()[0]["id"]
    machine.post("restart", params={"force_stop": "true", "timeout": "300s"})
    machine.wait("started", from_event_id=newest)
    kinds = [(event["type"], event["status"]) for event in machine.events()]
    assert kinds[:3] == [("start", "started"), ("exit", "stopped"), ("restart", "restarting")]
    assert machine.exits()[0]["exit_event"]["exit_code"] == 137
    newest = machine.events()[0]["id"]
    machine.post("restart", params={"timeout": "100ms", "signal": "SIGTERM", "force_stop": "false"})
    machine.wait("started", from_event_id=newest)
    machine.post("stop", {"timeout": 1_000_000})
    machine.wait("stopped")
    machine.post("restart", params={"timeout": "1"})
    machine.wait("started")
    assert machine.get()["instance_id"] == version
    assert app.fly.error("POST", f"{machine.path}/restart?timeout=x")[0] == 400


@shows("lifecycle", "the root file system is fresh at each start from stopped", "docs")
@shows("lifecycle", "`rootfs.persist`: `always` keeps it, `restart` keeps it over restarts", "docs")
@pytest.mark.parametrize(
    ("persist", "over_restart", "over_stop"),
    [(None, False, False), ("restart", True, False), ("always", True, True)],
)
def test_root_is_fresh(app: App, persist: str | None, over_restart: bool, over_stop: bool) -> None:
    config: dict[str, Any] = {"rootfs": {"persist": persist}} if persist else {}
    machine = app.create("sleep", "inf", **config)
    machine.exec("touch", "kept")
    newest = machine.events()[0]["id"]
    machine.post("restart")
    machine.wait("started", from_event_id=newest)
    assert (machine.exec("ls", "kept")["exit_code"] == 0) is over_restart
    machine.exec("touch", "kept")
    machine.post("stop")
    machine.wait("stopped")
    machine.post("start")
    machine.wait("started")
    assert (machine.exec("ls", "kept")["exit_code"] == 0) is over_stop


@shows("restart policy", "`no`: stopped, whatever the exit code", "docs")
@shows("restart policy", "`on-failure`, also when none is given: stopped after exit code 0", "docs")
@pytest.mark.parametrize(("policy", "code"), [("no", 0), ("no", 7), ("on-failure", 0), (None, 0)])
def test_main_process_that_is_not_restarted(app: App, policy: str | None, code: int) -> None:
    config: dict[str, Any] = {"restart": {"policy": policy}} if policy else {}
    machine = app.create("sh", "-c", f"exit {code}", wait="stopped", **config)
    [exited] = machine.exits()
    assert exited["exit_event"]["exit_code"] == code
    assert exited["exit_event"]["requested_stop"] is False
    assert exited["exit_event"]["restarting"] is False


@shows("restart policy", "`on-failure` gives up after `max_retries` within five minutes", "docs")
def test_on_failure_is_retried_then_given_up(app: App) -> None:
    machine = app.create(
        "sh", "-c", "exit 3", wait="stopped", restart={"policy": "on-failure", "max_retries": 2}
    )
    exits = machine.exits()
    assert [item["exit_event"]["restarting"] for item in exits] == [False, True, True]
    assert [item["restart_count"] for item in exits] == [0, 2, 1]
    assert {item["exit_event"]["exit_code"] for item in exits} == {3}
    # a new version is retried as often
    app.fly.ok("POST", machine.path, {"config": machine.get()["config"]})
    machine.wait("stopped")
    machine.post("start")
    eventually(lambda: len(machine.exits()) == 6)


@shows("restart policy", "`always` restarts after exit code 0 as well; an API stop ends it", "docs")
def test_always_restarts_until_stopped(app: App) -> None:
    machine = app.create("true", wait=None, restart={"policy": "always"})
    eventually(lambda: len(machine.exits()) >= 3)
    assert all(item["exit_event"]["restarting"] for item in machine.exits())
    machine.post("stop")
    machine.wait("stopped")
    assert machine.state == "stopped"


@shows(
    "auto_destroy", "with policy `no`: destroyed when it stops by itself or by an API stop", "seen"
)
@pytest.mark.parametrize("by_api", [False, True])
def test_auto_destroy(app: App, by_api: bool) -> None:
    command = ("sleep", "inf") if by_api else ("true",)
    machine = app.create(*command, wait=None, auto_destroy=True, restart={"policy": "no"})
    if by_api:
        machine.wait("started")
        machine.post("stop")
    machine.wait("destroyed")
    assert machine.events()[0]["status"] == "destroyed"


@shows("auto_destroy", "without policy `no` it stays `stopped`", "docs")
def test_auto_destroy_needs_policy_no(app: App) -> None:
    machine = app.create("true", wait="stopped", auto_destroy=True)
    assert machine.state == "stopped"


@shows(
    "lifecycle",
    "`init`: argv is `exec`, else `entrypoint` and `cmd`; `processes[0]` goes before",
    "openapi",
)
def test_argv(app: App) -> None:
    for config in (
        {"init": {"entrypoint": ["sh", "-c"], "cmd": ["exit 5"]}},
        {
            "init": {"exec": ["true"]},
            "processes": [{"exec": ["sh", "-c", "exit $P"], "env": {"P": "5"}}],
        },
    ):
        machine = app.create(wait="stopped", restart={"policy": "no"}, **config)
        assert machine.exits()[0]["exit_event"]["exit_code"] == 5


@shows(
    "lifecycle", "`processes[0]`: `env_from` and `secrets` name where values come from", "openapi"
)
def test_env_of_a_process(app: App) -> None:
    app.fly.ok("POST", f"{app.path}/secrets", {"values": {"TOKEN": "t", "OTHER": "o"}})
    process = {
        "ignore_app_secrets": True,
        "secrets": [{"env_var": "RENAMED", "name": "TOKEN"}],
        "env_from": [{"env_var": "ME", "field_ref": "id"}],
    }
    machine = app.create("sleep", "inf", processes=[process])
    lines = machine.exec("env")["stdout"].splitlines()
    assert {"RENAMED=t", f"ME={machine.id}"} <= set(lines)
    assert not {"TOKEN=t", "OTHER=o"} & set(lines)


@shows("faults", "`stuck`: stays in a state until something supersedes it", "ours")
@shows("POST M/start", "412 while `created`, 409 while `starting`", "seen")
@shows("POST M/stop", "a machine that is still being prepared is stopped", "docs")
def test_refusals_while_getting_ready(app: App, faults: Faults) -> None:
    faults(f"stuck=created,app={app.name},count=1")
    machine = app.create("sleep", "inf", wait=None)
    assert app.fly.error("POST", f"{machine.path}/start") == (
        412,
        "failed_precondition: unable to start machine from current state: 'created'",
    )
    assert app.fly.error("POST", f"{machine.path}/restart")[0] == 412
    machine.post("stop")
    machine.wait("stopped")
    faults(f"slow-boot=60,app={app.name},count=1")
    machine.post("start")
    assert machine.state == "starting"
    assert app.fly.error("POST", f"{machine.path}/start") == (
        409,
        "aborted: machine still attempting to start",
    )
    assert app.fly.error("POST", f"{machine.path}/suspend")[0] == 412
    assert app.fly.error("DELETE", machine.path)[0] == 412
    app.fly.ok("DELETE", f"{machine.path}?force=true")
    machine.wait("destroyed")


@shows("POST M/start", "412 while `stopping`: machine still active", "seen")
@shows("DELETE M", "with force it ends at once, also in the middle of a slow stop", "docs")
def test_refusals_while_stopping(app: App) -> None:
    machine = app.create(*STUBBORN).ready()
    machine.post("stop", {"timeout": "60s"})
    assert machine.state == "stopping"
    assert app.fly.error("POST", f"{machine.path}/start") == (
        412,
        "failed_precondition: machine still active, refusing to start",
    )
    machine.post("stop", {"timeout": "100ms"})
    assert [event["type"] for event in machine.events()].count("stop") == 1
    machine.destroy()


@shows("POST M/start", "a started machine stays so", "guess")
def test_start_of_a_started_machine(app: App) -> None:
    machine = app.create("sleep", "inf")
    assert machine.post("start")["previous_state"] == "started"
    assert len(machine.events()) == 2


@shows(
    "lifecycle", "a main process that cannot be started: `failed`, and start tries again", "docs"
)
def test_failed_start(app: App) -> None:
    machine = app.create(
        "sleep", "inf", wait="failed", files=[{"guest_path": "/f", "secret_name": "NO"}]
    )
    assert machine.events()[0]["status"] == "failed"
    app.fly.ok("POST", f"{app.path}/secrets/NO", {"value": "eA=="})
    machine.post("start")
    machine.wait("started")


@shows(
    "lifecycle",
    "when the host fails in the middle of a change: `failed`, which can be left",
    "docs",
)
def test_failure_of_the_engine(app: App) -> None:
    machine = app.create(*STUBBORN, env={"TINY_FAILS": "kill"}).ready()
    machine.post("stop", {"timeout": 1})
    machine.wait("failed")
    machine.destroy()
    machine = app.create("sleep", "inf", env={"TINY_FAILS": "suspend"})
    newest = machine.events()[0]["id"]
    machine.post("suspend")
    machine.wait("started", from_event_id=newest)


@shows(
    "POST M/start", "a suspended machine whose snapshot is lost boots cold, its files kept", "docs"
)
def test_lost_snapshot(app: App) -> None:
    machine = app.create("sh", "-c", "echo boot >> boots; sleep inf", env={"TINY_FAILS": "resume"})
    eventually(lambda: machine.exec("cat", "boots")["stdout"] == "boot\n")
    machine.post("suspend")
    machine.wait("suspended")
    machine.post("start")
    machine.wait("started")
    eventually(lambda: machine.exec("cat", "boots")["stdout"] == "boot\nboot\n")


@shows("GET M/events", "newest first, 20 unless `limit` says otherwise, at most 50", "openapi")
def test_events_are_limited(app: App) -> None:
    machine = app.create("sh", "-c", "exit 1", wait="stopped", restart={"policy": "on-failure"})
    path = f"{machine.path}/events"
    assert len(app.fly.ok("GET", path)) == 20
    assert len(app.fly.ok("GET", path, params={"limit": 3})) == 3
    everything = app.fly.ok("GET", path, params={"limit": 500})
    assert everything[-1]["type"] == "launch"
    ids = [event["id"] for event in everything]
    assert ids == sorted(ids, reverse=True)
    assert app.fly.error("GET", path, params={"limit": "x"})[0] == 400
    shown = machine.get()["events"]
    assert len(shown) < len(everything)
    assert shown[-1]["type"] == "launch"


@shows("GET M/ps", "the processes; `sort_by`, `order`; 412 when it does not run", "openapi")
@shows("GET M/memory", "available memory and the limit", "openapi")
@shows("PUT M/memory", "a new limit, at most the guest's memory", "openapi")
@shows("POST M/memory/reclaim", "lowers the limit by what is available", "openapi")
def test_processes_and_memory(app: App) -> None:
    machine = app.create("sleep", "inf")
    [process] = app.fly.ok("GET", f"{machine.path}/ps", params={"sort_by": "rss", "order": "desc"})
    assert process["pid"] == 1
    assert app.fly.error("GET", f"{machine.path}/ps?sort_by=colour")[0] == 400
    assert app.fly.error("GET", f"{machine.path}/ps?order=up")[0] == 400
    memory = f"{machine.path}/memory"
    assert app.fly.ok("GET", memory) == {"available_mb": 255, "limit_mb": 256}
    assert app.fly.ok("PUT", memory, {"limit_mb": 128}) == {"available_mb": 127, "limit_mb": 128}
    assert app.fly.error("PUT", memory, {"limit_mb": 512})[0] == 400
    assert app.fly.ok("POST", f"{memory}/reclaim", {"amount_mb": 100}) == {"actual_mb": 100}
    assert app.fly.ok("GET", memory) == {"available_mb": 27, "limit_mb": 28}
    machine.post("stop")
    machine.wait("stopped")
    assert app.fly.error("GET", memory)[0] == 412
    assert app.fly.error("GET", f"{machine.path}/ps")[0] == 412


@shows(
    "POST A/machines", "`schedule`: runs at create and again each interval, from creation", "docs"
)
@shows("POST M/start", "412 for a machine with a schedule, once it has run", "docs")
def test_schedule(serve: Any) -> None:
    with serve("--app", "cron", hour_s=0.5) as emulator:
        fly = Fly(emulator)
        machine = App(fly, "cron").create("true", wait="stopped", schedule="hourly")
        assert fly.error("POST", f"{machine.path}/start")[0] == 412
        eventually(lambda: len(machine.exits()) >= 3)
        assert fly.error("POST", f"{machine.path}/suspend")[0] == 412
        waiting = App(fly, "cron").create(
            "true", skip_launch=True, wait="stopped", schedule="hourly"
        )
        newest = machine.events()[0]["id"]
        machine.wait("started", from_event_id=newest)
        assert waiting.exits() == []
        waiting.post("start")
        waiting.wait("stopped")
        fly.close()


def test_machines_of_one_app_are_none_of_another(app: App, fly: Fly) -> None:
    machine = app.create("sleep", "inf")
    fly.ok("POST", "/v1/apps", {"name": f"{app.name}-other", "org_slug": "personal"})
    assert fly.error("GET", f"{app.path}-other/machines/{machine.id}")[0] == 404
    other = Machine(App(fly, f"{app.name}-other"), machine.id)
    assert fly.error("DELETE", f"{other.path}?force=true")[0] == 404


def test_nothing_of_a_machine_is_left_after_destroy(app: App) -> None:
    machine = app.create("sh", "-c", "sleep 1000 & echo $$ > pid; wait")
    text = eventually(lambda: machine.exec("cat", "pid")["stdout"])
    machine.destroy()
    with pytest.raises(ProcessLookupError):
        os.kill(int(text), 0)
