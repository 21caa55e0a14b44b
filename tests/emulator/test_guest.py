"""What a program finds in its machine, and what becomes of it, on an engine with walls."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from pytest_flymachines.emulator import restart
from pytest_flymachines.emulator.launch import EmulatorProcess, launch
from tests.emulator.conftest import App, Machine, eventually
from tests.emulator.fidelity import shows

NEVER = {"policy": "no"}
COUNTER = """
import itertools, pathlib, time, uuid
only_in_memory = uuid.uuid4().hex
for n in itertools.count():
    pathlib.Path("/root/new").write_text(f"{only_in_memory} {n}")
    pathlib.Path("/root/new").rename("/root/count")
    time.sleep(0.01)
"""


@pytest.fixture(scope="module")
def emulator() -> Iterator[EmulatorProcess]:
    with launch(engine="bubblewrap") as process:
        yield process


def log(app: App, machine: Machine) -> str:
    """What its main process wrote."""
    answer = app.fly.control.get(f"/machines/{machine.id}/log")
    answer.raise_for_status()
    return answer.text


@shows(
    "guest",
    "host name, hosts, limits, user, directory and HOME are as Fly's init sets them",
    "init",
)
@shows(
    "guest", "the variables that Fly sets; `PRIMARY_REGION` only where the config has it", "docs"
)
def test_what_a_program_finds(app: App) -> None:
    look = "hostname; id -un; pwd; echo $HOME; ulimit -n; grep fly-local-6pn /etc/hosts; env"
    machine = app.create("sh", "-c", look, wait="stopped", restart=NEVER)
    shown = machine.get()
    name, user, directory, home, files, hosts, *lines = log(app, machine).splitlines()
    assert [name, user, directory, home, files] == [machine.id, "root", "/", "/root", "10240"]
    assert hosts.split()[0] == shown["private_ip"]
    env = dict(line.split("=", 1) for line in lines if "=" in line)
    fly = {key: value for key, value in env.items() if key.startswith("FLY_")}
    assert fly.pop("FLY_PUBLIC_IP").startswith("2605:")
    assert fly == {
        "FLY_APP_NAME": app.name,
        "FLY_MACHINE_ID": machine.id,
        "FLY_ALLOC_ID": machine.id,
        "FLY_MACHINE_VERSION": shown["instance_id"],
        "FLY_REGION": shown["region"],
        "FLY_PRIVATE_IP": shown["private_ip"],
        "FLY_IMAGE_REF": "alpine",
        "FLY_VM_MEMORY_MB": "256",
        "FLY_PROCESS_GROUP": "",
    }
    assert "PRIMARY_REGION" not in env


@shows("guest", "`dns.hostname`, `init.tty`: a name of the config's, a terminal", "openapi")
@pytest.mark.parametrize("tty", [False, True])
def test_terminal_and_name(app: App, tty: bool) -> None:
    look = "test -t 0 && test -t 1 && echo terminal; hostname"
    machine = app.create(
        wait="stopped",
        init={"entrypoint": ["sh", "-c"], "cmd": [look], "tty": tty},
        dns={"hostname": "other"},
        restart=NEVER,
    )
    eventually(lambda: "other" in log(app, machine))
    assert log(app, machine).split() == (["terminal", "other"] if tty else ["other"])


@shows("guest", "an exit event has the signal that killed the main process", "fly-go")
def test_death_by_signal(app: App) -> None:
    machine = app.create("sh", "-c", "kill -SEGV $$", wait="stopped", restart=NEVER)
    exited = machine.exits()[0]["exit_event"]
    assert (exited["exit_code"], exited["signal"], exited["oom_killed"]) == (139, 11, False)


@shows("guest", "an exit event says `oom_killed` when the machine had no memory left", "docs")
def test_death_for_want_of_memory(app: App, emulator: EmulatorProcess) -> None:
    if notes := [note for note in emulator.notes if "oom_killed" in note]:
        pytest.skip(notes[0])
    hog = "x = [bytearray(2**20) for _ in range(600)]"
    machine = app.create("python3", "-c", hog, wait="stopped", restart=NEVER)
    exited = machine.exits()[0]["exit_event"]
    assert (exited["exit_code"], exited["oom_killed"]) == (137, True)
    assert exited["requested_stop"] is False


@shows("guest", "suspend keeps the memory of programs, and stop does not", "docs")
def test_memory_over_suspend_and_stop(app: App) -> None:
    machine = app.create("python3", "-c", COUNTER)

    def read() -> list[str]:
        return str(machine.exec("cat", "/root/count")["stdout"]).split()

    def later_than(before: int) -> bool:
        return int(read()[1]) > before

    for change, at_rest, kept in (("suspend", "suspended", True), ("stop", "stopped", False)):
        known, before = eventually(read)
        machine.post(change)
        machine.wait(at_rest)
        machine.post("start")
        machine.wait("started")
        there, _ = eventually(read)
        assert (there == known) is kept
        if kept:
            eventually(partial(later_than, int(before)))


class Failing:
    """Something that is restarted."""

    def __init__(self, policy: str, max_retries: int = 0) -> None:
        self.policy = policy
        self.max_retries = max_retries
        self.restarts_ms: list[int] = []


@shows("restart policy", "each restart waits longer, up to a limit", "guess")
def test_restarts_slow_down() -> None:
    failing = Failing("always")
    pauses = []
    for _ in range(9):
        assert restart.restarts(failing, 0)
        pauses.append(restart.backoff_s(failing, 0.1, 2.0))
    assert pauses == pytest.approx([0, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0])


def test_restarts_of_more_than_five_minutes_ago_do_not_count(monkeypatch: Any) -> None:
    now = 1_000_000
    monkeypatch.setattr(restart, "now_ms", lambda: now)
    failing = Failing("on-failure", max_retries=2)
    assert [restart.restarts(failing, 1) for _ in range(3)] == [True, True, False]
    now += restart.WINDOW_MS
    assert restart.restarts(failing, 1)
    assert restart.backoff_s(failing, 0.1, 2.0) == 0


def test_ten_restarts_are_tried_where_none_are_given() -> None:
    failing = Failing("on-failure")
    assert [restart.restarts(failing, 1) for _ in range(12)] == [True] * 10 + [False] * 2
