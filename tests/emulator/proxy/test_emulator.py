"""The proxy in a whole emulator: real machines behind it and in front of it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from pytest_flymachines.emulator.launch import EmulatorProcess, launch
from tests.emulator.fidelity import shows

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


UDP_ECHO = (
    "import os, socket, sys\n"
    "name = os.environ.get('PYTEST_FLYMACHINES_BIND', sys.argv[1])\n"
    "s = socket.socket(type=socket.SOCK_DGRAM)\n"
    "s.bind((name, 5353))\n"
    "while True:\n"
    "  data, visitor = s.recvfrom(999)\n"
    "  s.sendto(data + b' from ' + name.encode(), visitor)\n"
)


def udp_machine(api: httpx.Client, name: str) -> str:
    services = [{"protocol": "udp", "internal_port": 9, "ports": [{"port": 5353}]}]
    return started(api, f'exec python3 -c "{UDP_ECHO}" {name}', services=services)


def asked(emulator: EmulatorProcess, text: bytes, tries: int) -> bytes:
    """What comes back from the UDP port of app `web`; empty if nothing does."""
    headers = {"Authorization": f"Bearer {emulator.token}"}
    url = f"{emulator.control_url}/services"
    where = httpx.get(url, headers=headers, trust_env=False).json()["web"]["5353/udp"]
    host, _, port = where.rpartition(":")
    with socket.socket(type=socket.SOCK_DGRAM) as visitor:
        visitor.settimeout(0.2)
        for _ in range(tries):
            visitor.sendto(text, (host, int(port)))
            with contextlib.suppress(TimeoutError):
                return visitor.recv(999)
    return b""


@shows(
    "proxy",
    "services with protocol `udp` get datagrams at `fly-global-services` and the external port",
    "docs",
)
def test_datagrams_reach_a_machine(emulator: EmulatorProcess, api: httpx.Client) -> None:
    udp_machine(api, "fly-global-services")
    assert asked(emulator, b"hello", tries=100).startswith(b"hello from ")


@shows("proxy", "what a program answers that is bound to 0.0.0.0 does not arrive (UDP)", "docs")
def test_an_answer_from_another_address_is_not_heard(
    emulator: EmulatorProcess, api: httpx.Client
) -> None:
    if emulator.engine != "bubblewrap":
        pytest.skip("only bubblewrap's machines have a loopback of their own")
    machine = udp_machine(api, "0.0.0.0")
    url = f"/machines/{machine}/exec"
    bound = {"command": ["grep", "-qs", ":14E9 ", "/proc/net/udp"]}
    while api.post(url, json=bound).json()["exit_code"]:
        pass
    assert asked(emulator, b"hello", tries=2) == b""
