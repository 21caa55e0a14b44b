"""`--state DIR`: what was answered is there when the next emulator starts."""

from __future__ import annotations

import os
import re
import resource
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from pytest_flymachines.emulator.engines.supervisor.tree import descendants
from pytest_flymachines.emulator.launch import LaunchError
from pytest_flymachines.emulator.store import APPLICATION
from tests.emulator.conftest import App, Fly, Serve, eventually
from tests.emulator.fidelity import shows
from tests.emulator.processes import has_ended


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
        machines = set(descendants(emulator.pid))
        assert len(machines) == 2
        os.kill(emulator.pid, how)
        emulator.stop()
    eventually(lambda: all(map(has_ended, machines)))
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


def written(directory: Path) -> sqlite3.Connection:
    directory.mkdir()
    database = sqlite3.connect(directory / "emulator.sqlite3")
    database.execute("CREATE TABLE record(kind, key, body)")
    return database


def garbage(directory: Path) -> None:
    directory.mkdir()
    (directory / "emulator.sqlite3").write_bytes(b"garbage" * 1000)


def cut_short(directory: Path) -> None:
    database = written(directory)
    database.executemany("INSERT INTO record VALUES ('app', ?, ?)", [("a" * 99, "{}")] * 999)
    database.commit()
    with (directory / "emulator.sqlite3").open("r+b") as file:
        file.truncate(9000)


def with_a_strange_record(directory: Path) -> None:
    database = written(directory)
    database.execute("INSERT INTO record VALUES ('app', 'a', '[]')")
    database.commit()


def of_another_program(directory: Path) -> None:
    written(directory).execute("CREATE TABLE bookmarks(url)")


def of_a_newer_version(directory: Path) -> None:
    database = written(directory)
    database.execute(f"PRAGMA application_id={APPLICATION}")
    database.execute("PRAGMA user_version=99")


def no_directory(directory: Path) -> None:
    directory.write_text("")


def unwritable(directory: Path) -> None:
    (directory / "emulator.sqlite3").mkdir(parents=True)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (garbage, "emulator.sqlite3 is damaged (file is not a database); move it away"),
        (cut_short, "emulator.sqlite3 is damaged ("),
        (with_a_strange_record, "emulator.sqlite3 is damaged (Expected `object`"),
        (of_another_program, "is a database of another program; move it away"),
        (of_a_newer_version, "newer version of this emulator (form 99, this one knows 1): upgrade"),
        (no_directory, "it must be a directory that you may write to"),
        (unwritable, "it and its directory must be writable, with room on the disk"),
    ],
)
def test_state_that_cannot_be_used_is_refused_and_left_alone(
    serve: Serve, tmp_path: Path, make: Callable[[Path], None], said: str
) -> None:
    state = tmp_path / "state"
    make(state)
    file = state / "emulator.sqlite3"
    before = file.read_bytes() if file.is_file() else b""
    with pytest.raises(LaunchError, match=re.escape(said)) as raised, serve("--state", str(state)):
        pass
    assert "Traceback" not in str(raised.value)
    assert (file.read_bytes() if file.is_file() else b"") == before


def test_an_earlier_form_without_a_header_is_read(serve: Serve, tmp_path: Path) -> None:
    state = ("--state", str(tmp_path / "state"))
    with serve("--app", "kept", *state):
        pass
    with closing(sqlite3.connect(tmp_path / "state" / "emulator.sqlite3")) as database:
        database.execute("PRAGMA application_id=0")
        database.execute("PRAGMA user_version=0")
    with serve(*state) as emulator:
        fly = Fly(emulator)
        assert fly.ok("GET", "/v1/apps/kept")["name"] == "kept"
        fly.close()


def test_what_could_not_be_written_is_an_error_and_written_later(
    serve: Serve, tmp_path: Path
) -> None:
    """As on a disk that is full for a while."""
    state = ("--state", str(tmp_path / "state"))
    app = {"name": "full", "org_slug": "personal"}
    with serve(*state) as emulator:
        fly = Fly(emulator)
        resource.prlimit(emulator.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        status, error = fly.error("POST", "/v1/apps", app)
        assert (status, "state cannot be written: " in error) == (500, True)
        free = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(emulator.pid, resource.RLIMIT_FSIZE, free)
        fly.ok("POST", "/v1/apps", {"name": "later", "org_slug": "personal"})
        os.kill(emulator.pid, signal.SIGKILL)
        fly.close()
        emulator.stop()
    with serve(*state) as emulator:
        fly = Fly(emulator)
        for name in ("full", "later"):
            assert fly.ok("GET", f"/v1/apps/{name}")["name"] == name
        fly.close()


def test_state_is_for_its_user_alone(serve: Serve, tmp_path: Path) -> None:
    with serve("--state", str(tmp_path / "state")):
        modes = {path.stat().st_mode & 0o077 for path in (tmp_path / "state").glob("*.sqlite3")}
        assert modes == {0}
        assert (tmp_path / "state").stat().st_mode & 0o077 == 0
