from __future__ import annotations

import socket
import sys
from typing import Any

import pytest

from tests.emulator.conftest import App, Machine, eventually
from tests.emulator.fidelity import shows

SERVER = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        ok = os.path.exists("healthy") and self.headers.get("X-Probe", "") == "yes"
        self.send_response(200 if ok else 503)
        self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture
def port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free: int = probe.getsockname()[1]
    return free


def status(machine: Machine, name: str) -> str:
    checks: list[dict[str, Any]] = machine.get()["checks"]
    return str(next(check["status"] for check in checks if check["name"] == name))


def until(machine: Machine, name: str, wanted: str) -> None:
    eventually(lambda: status(machine, name) == wanted)


@shows("checks", "`http` passes on 2xx with the headers that it is given, `tcp` on connect", "docs")
@shows("checks", "those of services are named `servicecheck-00-tcp-8080`", "fly-go")
@shows("checks", "a failing check never restarts a machine", "docs")
def test_checks_are_run_and_shown(app: App, port: int) -> None:
    quick = {"interval": "50ms", "timeout": "5s"}
    headers = [{"name": "X-Probe", "values": ["yes"]}]
    web = {"type": "http", "port": port, "method": "GET", "path": "/", "headers": headers, **quick}
    service = {"protocol": "tcp", "internal_port": port, "checks": [{"type": "tcp", **quick}]}
    machine = app.create(
        sys.executable, "-c", SERVER, str(port), checks={"web": web}, services=[service]
    )
    tcp = f"servicecheck-00-tcp-{port}"
    until(machine, tcp, "passing")
    until(machine, "web", "critical")
    machine.exec("touch", "healthy")
    until(machine, "web", "passing")
    assert len(machine.events()) == 2
    machine.post("stop")
    machine.wait("stopped")
    assert status(machine, "web") == "warning"


@shows("checks", "within `grace_period` a failure does not count", "docs")
def test_grace_period(app: App, port: int) -> None:
    check = {"type": "tcp", "port": port, "interval": "50ms", "grace_period": "1h"}
    machine = app.create("sleep", "inf", checks={"port": check})
    assert status(machine, "port") == "warning"
    with socket.create_server(("127.0.0.1", port)):
        until(machine, "port", "passing")
