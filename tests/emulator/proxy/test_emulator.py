"""The proxy in a whole emulator: real machines behind it and in front of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from pytest_flymachines.emulator.launch import EmulatorProcess, launch

SERVER = (
    "cd ${TMPDIR:-/tmp} && mkdir -p www && cd www && echo hello > a.txt && "
    "exec python3 -m http.server"
)
BIND = "--bind ${PYTEST_FLYMACHINES_BIND:-0.0.0.0} 8080"


@pytest.fixture(scope="module", params=["auto", "process"])
def emulator(request: pytest.FixtureRequest) -> Iterator[EmulatorProcess]:
    emulator = launch(engine=request.param, apps=("web",))
    try:
        yield emulator
    finally:
        emulator.stop()


@pytest.fixture
def api(emulator: EmulatorProcess) -> Iterator[httpx.Client]:
    """The API, with the machines gone afterwards."""
    headers = {"Authorization": f"Bearer {emulator.token}"}
    base_url = f"{emulator.api_url}/v1/apps/web"
    with httpx.Client(base_url=base_url, headers=headers, timeout=70, trust_env=False) as api:
        yield api
        for machine in api.get("/machines").json():
            api.delete(f"/machines/{machine['id']}", params={"force": "true"})


def started(api: httpx.Client, command: str, **config: Any) -> str:
    """Id of a new machine that runs a command."""
    init = {"exec": ["/bin/sh", "-c", command]}
    guest = {"cpu_kind": "shared", "cpus": 1, "memory_mb": 256}
    body = {"config": {"image": "none", "guest": guest, "init": init} | config}
    answer = api.post("/machines", json=body)
    assert answer.status_code == 200, answer.text
    machine_id: str = answer.json()["id"]
    until(api, machine_id, "started")
    return machine_id


def until(api: httpx.Client, machine_id: str, state: str) -> None:
    answer = api.get(f"/machines/{machine_id}/wait", params={"state": state, "timeout": 60})
    assert answer.status_code == 200, answer.text


def test_a_suspended_and_a_stopped_machine_wake_for_a_request(
    emulator: EmulatorProcess, api: httpx.Client
) -> None:
    service = {
        "protocol": "tcp",
        "internal_port": 8080,
        "autostart": True,
        "ports": [{"port": 443, "handlers": ["tls", "http"]}],
    }
    machine_id = started(api, f"{SERVER} {BIND}", services=[service])
    with httpx.Client(
        base_url=emulator.proxy_url, headers={"Host": "web.fly.dev"}, timeout=60, trust_env=False
    ) as visitor:
        assert visitor.get("/a.txt").text == "hello\n"
        for action, state in (("suspend", "suspended"), ("stop", "stopped")):
            api.post(f"/machines/{machine_id}/{action}")
            until(api, machine_id, state)
            assert visitor.get("/a.txt").text == "hello\n"
            assert api.get(f"/machines/{machine_id}").json()["state"] == "started"


def test_a_machine_reaches_its_own_record_and_nobody_elses(api: httpx.Client) -> None:
    machine_id = started(api, "sleep 1000")
    ask = (
        "import http.client, os, socket\n"
        "door = os.environ.get('PYTEST_FLYMACHINES_ROOT', '') + '/.fly/api'\n"
        "for path in ('/' + os.environ['FLY_MACHINE_ID'], ''):\n"
        "    api = http.client.HTTPConnection('flaps')\n"
        "    api.sock = socket.socket(socket.AF_UNIX)\n"
        "    api.sock.connect(door)\n"
        "    api.request('GET', '/v1/apps/web/machines' + path)\n"
        "    print(api.getresponse().status)\n"
    )
    body = {"command": ["python3", "-c", ask], "timeout": 30}
    answer = api.post(f"/machines/{machine_id}/exec", json=body).json()
    assert answer["stdout"].split() == ["200", "401"], answer
