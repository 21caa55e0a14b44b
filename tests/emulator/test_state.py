"""`--state DIR`: what was answered is there when the next emulator starts."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from pytest_flymachines.emulator.launch import LaunchError
from tests.emulator.conftest import App, Fly, Serve
from tests.emulator.fidelity import shows


@shows("state", "apps, machines (stopped), volumes, secrets, addresses, metadata come back", "ours")
@shows("state", "a kill -9 loses nothing that was answered", "ours")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_everything_comes_back(serve: Serve, tmp_path: Path, how: signal.Signals) -> None:
    state = ("--state", str(tmp_path / "state"))
    with serve("--app", "kept", *state) as emulator:
        fly = Fly(emulator)
        app = App(fly, "kept")
        volume = fly.ok("POST", f"{app.path}/volumes", {"name": "data", "region": "fra"})
        mounts = [{"volume": volume["id"], "path": "/data"}]
        running = app.create("sleep", "inf", mounts=mounts, metadata={"a": "1"}, name="running")
        suspended = app.create("sleep", "inf")
        suspended.exec("touch", "kept")
        suspended.post("suspend")
        suspended.wait("suspended")
        gone = app.create("sleep", "inf")
        gone.destroy()
        fly.ok("POST", f"{app.path}/secrets", {"values": {"S": "secret"}})
        ip = fly.ok("POST", f"{app.path}/ip_assignments", {"type": "v6"})
        fly.ok("POST", f"{running.path}/metadata/last", {"value": "2"})
        before = running.get()
        fly.close()
        os.kill(emulator.pid, how)
        emulator.stop()
    with serve(*state, "--list-delay", "200") as emulator:
        fly = Fly(emulator)
        app = App(fly, "kept")
        after = fly.ok("GET", running.path)
        assert (after["state"], after["config"]) == ("stopped", before["config"])
        assert after["config"]["metadata"] == {"a": "1", "last": "2"}
        assert [event["type"] for event in after["events"]] == ["exit", "start", "launch"]
        assert fly.ok("GET", f"{app.path}/volumes")[0]["attached_machine_id"] == running.id
        assert fly.ok("GET", f"{app.path}/secrets/S?show_secrets=1")["value"] == "secret"
        assert fly.ok("GET", f"{app.path}/ip_assignments")["ips"] == [ip]
        names = [item["name"] for item in fly.ok("GET", app.machines)]
        assert names[0] == "running"
        assert len(names) == 2
        fly.ok("POST", f"{running.path}/start")
        assert fly.ok("GET", f"{running.path}/wait")["state"] == "started"
        # Its memory is lost, its files are not.
        assert fly.ok("GET", suspended.path)["state"] == "suspended"
        fly.ok("POST", f"{suspended.path}/start")
        fly.ok("GET", f"{suspended.path}/wait")
        body = {"command": ["ls", "kept"]}
        assert fly.ok("POST", f"{suspended.path}/exec", body)["exit_code"] == 0
        fly.close()


def test_answers_survive_a_kill_in_the_middle_of_writing(serve: Serve, tmp_path: Path) -> None:
    state = ("--state", str(tmp_path / "state"))
    with serve("--app", "kept", *state) as emulator:
        fly = Fly(emulator)
        app = App(fly, "kept")
        made = [app.create(skip_launch=True, wait=None, name=f"m{n}").id for n in range(30)]
        os.kill(emulator.pid, signal.SIGKILL)
        fly.close()
        emulator.stop()
    with serve(*state) as emulator:
        fly = Fly(emulator)
        listed = fly.ok("GET", "/v1/apps/kept/machines")
        assert [item["id"] for item in listed] == made
        assert {item["state"] for item in listed} == {"stopped"}
        fly.close()


def test_a_state_directory_is_for_one_emulator(serve: Serve, tmp_path: Path) -> None:
    state = ("--state", str(tmp_path / "state"))
    in_use = pytest.raises(LaunchError, match="in use by another emulator")
    with serve(*state), in_use, serve(*state):
        pass


def test_state_is_for_its_user_alone(serve: Serve, tmp_path: Path) -> None:
    with serve("--state", str(tmp_path / "state")):
        modes = {path.stat().st_mode & 0o077 for path in (tmp_path / "state").glob("*.sqlite3")}
        assert modes == {0}
        assert (tmp_path / "state").stat().st_mode & 0o077 == 0
