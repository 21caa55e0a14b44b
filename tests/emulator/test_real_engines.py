"""The emulator with its own engines: what a user gets who starts it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from pytest_flymachines.emulator.launch import EmulatorProcess, launch
from tests.emulator.conftest import App, Fly, eventually
from tests.emulator.fidelity import shows

SERVER = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = os.environ["FLY_MACHINE_ID"].encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
address = os.environ.get("PYTEST_FLYMACHINES_BIND", "0.0.0.0")
http.server.ThreadingHTTPServer((address, 8080), Handler).serve_forever()
"""


@pytest.fixture(scope="module", params=["bubblewrap", "process"])
def emulator(request: pytest.FixtureRequest) -> Iterator[EmulatorProcess]:
    with launch(engine=request.param) as process:
        assert process.engine == request.param
        yield process


def shell(text: str) -> list[str]:
    """A command that finds the machine's own root with either engine."""
    return ["sh", "-c", f'R="${{PYTEST_FLYMACHINES_ROOT:-}}"; {text}']


def test_life_of_a_machine(app: App) -> None:
    volume = app.fly.ok("POST", f"{app.path}/volumes", {"name": "data"})
    config: dict[str, Any] = {
        "mounts": [{"volume": volume["id"], "path": "/data"}],
        "files": [{"guest_path": "/opt/test/file", "raw_value": "aGVsbG8=", "mode": 0o600}],
        "env": {"GIVEN": "env"},
    }
    machine = app.create("sleep", "inf", **config)
    look = shell(
        'cat "$R/opt/test/file"; stat -c %a "$R/opt/test/file"; echo $GIVEN $FLY_MACHINE_ID'
    )
    assert machine.exec(*look)["stdout"] == f"hello600\nenv {machine.id}\n"
    machine.exec(*shell('echo kept > "$R/data/file"; echo lost > "$R/opt/test/lost"'))
    machine.post("suspend")
    machine.wait("suspended")
    machine.post("start")
    machine.wait("started")
    assert machine.exec(*shell('cat "$R/opt/test/lost"'))["stdout"] == "lost\n"
    assert "sleep inf" in {item["command"] for item in app.fly.ok("GET", f"{machine.path}/ps")}
    assert app.fly.ok("GET", f"{machine.path}/memory")["limit_mb"] == 256
    machine.post("stop")
    machine.wait("stopped")
    assert machine.exits()[0]["exit_event"]["requested_stop"] is True
    machine.post("start")
    machine.wait("started")
    assert machine.exec(*shell('cat "$R/data/file"; ls "$R/opt/test"'))["stdout"] == "kept\nfile\n"
    machine.destroy()
    other = app.create("sleep", "inf", name="other")
    assert other.exec(*shell('test -e "$R/opt/test/file"'))["exit_code"] == 1


@shows("POST A/machines", "400 for a file from an `image_config` where there are no images", "ours")
def test_image_config_needs_images(app: App) -> None:
    files = [{"guest_path": "/image.json", "image_config": "alpine"}]
    status, text = app.fly.error(
        "POST", app.machines, {"config": {"image": "alpine", "files": files}}
    )
    assert (status, "--engine docker" in text) == (400, True)


def test_two_machines_on_one_port(app: App) -> None:
    service = {
        "protocol": "tcp",
        "internal_port": 8080,
        "ports": [{"port": 80, "handlers": ["http"]}],
        "checks": [{"type": "http", "path": "/", "interval": "100ms", "timeout": "5s"}],
    }
    machines = [app.create("python3", "-c", SERVER, services=[service]) for _ in range(2)]
    for machine in machines:
        machine.passing()
        headers = {"host": f"{app.name}.fly.dev", "fly-force-instance-id": machine.id}
        url = app.fly.emulator.proxy_url
        assert httpx.get(url, headers=headers, trust_env=False).text == machine.id
        body = {"app": app.name, "machine": machine.id, "port": 8080}
        made = app.fly.control.post("/forwards", json=body).json()
        url = f"http://{made['host']}:{made['port']}"
        assert httpx.get(url, trust_env=False).text == machine.id


def test_exit_of_the_main_process(app: App) -> None:
    machine = app.create(
        "sh", "-c", "sleep 1000 & exit 7", wait="stopped", restart={"policy": "no"}
    )
    assert machine.exits()[0]["exit_event"]["exit_code"] == 7
    missing = app.create("/no/such/program", wait="stopped,failed", restart={"policy": "no"})
    assert missing.state in ("stopped", "failed")


@pytest.mark.parametrize("engine", ["bubblewrap", "process"])
def test_machines_die_with_an_emulator_that_is_killed(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = f"mark-{os.getpid()}-{engine}"
    with launch(engine=engine, apps=["killed"]) as emulator:
        fly = Fly(emulator)
        App(fly, "killed").create("sh", "-c", f"sleep 1000; : {mark}", wait="started")
        assert is_running(mark)
        os.kill(emulator.pid, signal.SIGKILL)
        fly.close()
    eventually(lambda: not is_running(mark))


def is_running(mark: str) -> bool:
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (entry / "cmdline").read_bytes() and entry.name != str(os.getpid()):
                return True
        except OSError:
            continue
    return False
