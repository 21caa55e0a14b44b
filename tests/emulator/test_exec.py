from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.emulator.conftest import App, eventually
from tests.emulator.fidelity import shows


@shows("POST M/exec", "any exit code is a 200 with exit_code, stdout, stderr", "docs")
def test_exit_code_and_output(app: App) -> None:
    machine = app.create("sleep", "inf")
    assert machine.exec("sh", "-c", "echo out; echo err >&2; exit 3") == {
        "exit_code": 3,
        "exit_signal": 0,
        "stdout": "out\n",
        "stderr": "err\n",
    }


@shows("POST M/exec", "`cmd` is split into words as a shell does, and no shell runs", "fly-go")
@shows("POST M/exec", "`command` is argv as it is, and goes before `cmd`", "openapi")
@pytest.mark.parametrize(
    ("cmd", "stdout"),
    [
        ("echo a  b", "a b\n"),
        ("echo 'a  b' \"c d\" e\\ f", "a  b c d e f\n"),
        ("echo $HOME | wc -l", "$HOME | wc -l\n"),
        ("sh -c 'echo a | wc -l'", "1\n"),
    ],
)
def test_cmd_is_split(app: App, cmd: str, stdout: str) -> None:
    machine = app.create("sleep", "inf")
    assert machine.post("exec", {"cmd": cmd, "timeout": 5})["stdout"] == stdout
    both = machine.post("exec", {"cmd": cmd, "command": ["echo", "$A  b"]})
    assert both["stdout"] == "$A  b\n"


@shows(
    "POST M/exec", "400 without a command, for quotes that do not close, for wrong types", "guess"
)
def test_bad_commands_are_refused(app: App) -> None:
    machine = app.create("sleep", "inf")
    for body in ({}, {"cmd": ""}, {"cmd": "echo 'a"}, {"command": "ls"}, {"timeout": "5"}):
        assert app.fly.error("POST", f"{machine.path}/exec", body)[0] == 400


@shows("POST M/exec", "a program that is not there: exit code 127 and a line on stderr", "guess")
def test_missing_program(app: App) -> None:
    outcome = app.create("sleep", "inf").exec("/no/such/program")
    assert outcome["exit_code"] == 127
    assert outcome["stderr"]


@shows("POST M/exec", "killed by a signal: `exit_signal`, and no `exit_code`", "init")
def test_killed_command(app: App) -> None:
    outcome = app.create("sleep", "inf").exec("sh", "-c", "kill -9 $$")
    assert outcome["exit_signal"] == 9
    assert "exit_code" not in outcome


@shows("POST M/exec", "output that is not UTF-8 comes with replacement characters", "guess")
def test_output_is_utf8(app: App) -> None:
    outcome = app.create("sleep", "inf").exec("printf", r"a\377b\303\251")
    assert outcome["stdout"] == "a�bé"


@shows("POST M/exec", "`stdin` is given to the command; without it there is none", "openapi")
def test_stdin(app: App) -> None:
    machine = app.create("sleep", "inf")
    assert machine.exec("cat", stdin="é\n")["stdout"] == "é\n"
    assert machine.exec("cat")["stdout"] == ""


@shows(
    "POST M/exec",
    "a body above 16 KiB: 200, exit code 0, `Unhandled rejection` in the output",
    "seen",
)
def test_large_body(app: App) -> None:
    machine = app.create("sleep", "inf")
    frame = len(json.dumps({"command": ["echo", ""]}))
    fits = "x" * (16 * 1024 - frame)
    assert machine.exec("echo", fits)["stdout"] == f"{fits}\n"
    outcome = machine.exec("echo", f"{fits}x")
    assert outcome["exit_code"] == 0
    assert outcome["stdout"].startswith("Unhandled rejection: Rejection([PayloadTooLarge")


@shows("POST M/exec", "400 for a timeout above 60 s", "seen")
def test_timeout_is_bounded(app: App) -> None:
    machine = app.create("sleep", "inf")
    assert app.fly.error("POST", f"{machine.path}/exec", {"cmd": "true", "timeout": 61}) == (
        400,
        "timeout must not exceed 60 seconds",
    )
    assert machine.exec("true", timeout=60)["exit_code"] == 0


@shows("POST M/exec", "408 when the time is over, and the command goes on", "seen")
def test_command_goes_on_after_408(app: App) -> None:
    machine = app.create("sleep", "inf")
    command = ["sh", "-c", "sleep 1.5; echo done > late"]
    assert app.fly.error("POST", f"{machine.path}/exec", {"command": command, "timeout": 1}) == (
        408,
        (
            'deadline_exceeded: Post "http://unix/v1/exec": net/http: request canceled '
            "(Client.Timeout exceeded while awaiting headers)"
        ),
    )
    eventually(lambda: machine.exec("cat", "late")["stdout"] == "done\n")


@shows("POST M/exec", "one at a time: waiting for its turn counts as its time", "init")
def test_one_at_a_time(app: App) -> None:
    machine = app.create("sleep", "inf")
    first = threading.Thread(target=machine.exec, args=("sh", "-c", "sleep 2; echo 1 >> log"))
    first.start()
    statuses = []
    while first.is_alive() and 408 not in statuses:
        body = {"command": ["true"], "timeout": 1}
        statuses.append(app.fly("POST", f"{machine.path}/exec", body).status_code)
    assert 408 in statuses
    first.join()
    assert machine.exec("cat", "log")["stdout"] == "1\n"


@shows("POST M/exec", "412 unless the machine is started; it wakes nothing", "seen")
@shows("POST M/exec", "412 `EOF` when the machine goes down meanwhile", "seen")
def test_machine_must_run(app: App) -> None:
    machine = app.create("sleep", "inf")
    path = f"{machine.path}/exec"
    stop = threading.Timer(0.3, machine.post, args=("stop",))
    stop.start()
    assert app.fly.error("POST", path, {"command": ["sleep", "20"]}) == (
        412,
        "failed_precondition: exec request failed: EOF",
    )
    stop.join()
    machine.wait("stopped")
    assert app.fly.error("POST", path, {"cmd": "true"}) == (
        412,
        "failed_precondition: machine not running",
    )
    assert machine.state == "stopped"


def test_machine_without_containers_has_none(app: App) -> None:
    machine = app.create("sleep", "inf")
    path = f"{machine.path}/exec"
    assert app.fly.error("POST", path, {"cmd": "true", "container": "side"})[0] == 404
    assert machine.exec("true", machine=True)["exit_code"] == 0


@shows("POST M/exec", "412 when the machine is suspended meanwhile; the command goes on", "docs")
def test_suspend_ends_the_call_and_not_the_command(app: App) -> None:
    machine = app.create("sleep", "inf")
    command = "touch began; while [ ! -e go ]; do sleep 0.02; done; touch over"
    with ThreadPoolExecutor() as pool:
        body = {"command": ["sh", "-c", command], "timeout": 60}
        directory = Path(machine.exec("pwd")["stdout"].strip())
        called = pool.submit(app.fly.error, "POST", f"{machine.path}/exec", body)
        eventually((directory / "began").exists)
        machine.post("suspend")
        assert called.result(timeout=30) == (
            412,
            "failed_precondition: exec request failed: EOF",
        )
    machine.post("start")
    machine.wait("started")
    (directory / "go").touch()
    eventually((directory / "over").exists)
