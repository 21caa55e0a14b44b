"""Machines that find and reach one another, as programs in them see it."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from pytest_flymachines.emulator.launch import EmulatorProcess, launch
from tests.emulator.conftest import NAMES, App, Fly, Machine, eventually
from tests.emulator.fidelity import shows

HTTP = ["python3", "-m", "http.server", "--directory", "/etc", "--bind"]
FETCH = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=60).status)"


@pytest.fixture(scope="module")
def emulator() -> Iterator[EmulatorProcess]:
    with launch(engine="bubblewrap") as process:
        if any("neither each other" in note for note in process.notes):
            pytest.skip(f"no private network here: {process.notes}")
        yield process


@pytest.fixture(scope="module")
def web(fly: Fly) -> App:
    return new_app(fly)


@pytest.fixture(scope="module")
def client(web: App) -> Machine:
    return web.create("sleep", "inf", region="fra")


def new_app(fly: Fly, **fields: str) -> App:
    name = next(NAMES)
    fly.ok("POST", "/v1/apps", {"name": name, "org_slug": "personal", **fields})
    return App(fly, name)


def fetch(machine: Machine, url: str) -> dict[str, Any]:
    return machine.exec("python3", "-c", FETCH, url)


def fetched(machine: Machine, url: str) -> None:
    """A server that has just been started may not listen yet."""
    eventually(lambda: fetch(machine, url)["stdout"] == "200\n")


def resolved(machine: Machine, name: str) -> set[str]:
    found = machine.exec("getent", "ahostsv6", name)["stdout"]
    return {line.split()[0] for line in found.splitlines()}


@shows("6PN", "machines of a network reach each other by name, on every port", "docs")
def test_one_machine_visits_another(fly: Fly, web: App, client: Machine) -> None:
    server = web.create(*HTTP, "::", "8080")
    name = f"{server.id}.vm.{web.name}.internal"
    assert resolved(client, name) == {server.get()["private_ip"]}
    fetched(client, f"http://{name}:8080/profile")
    fetched(new_app(fly).create("sleep", "inf"), f"http://{name}:8080/profile")
    fetched(server, f"http://{name}:8080/profile")
    assert "Connection refused" in fetch(client, f"http://{name}:8081/")["stderr"]


@shows("6PN", "a server is reached if it listens on `::` or `fly-local-6pn`", "docs")
def test_where_a_server_listens(web: App, client: Machine) -> None:
    server = web.create(*HTTP, "fly-local-6pn", "8080")
    fetched(client, f"http://{server.id}.vm.{web.name}.internal:8080/profile")
    hidden = web.create(*HTTP, "127.0.0.1", "8080")
    fetched(hidden, "http://127.0.0.1:8080/profile")
    url = f"http://{hidden.id}.vm.{web.name}.internal:8080/profile"
    assert "Connection refused" in fetch(client, url)["stderr"]


@shows("6PN", "`APP.internal` has the started machines, and those alone", "docs")
def test_stopped_machines_have_no_name(fly: Fly) -> None:
    app = new_app(fly)
    stays, stops = (app.create("sleep", "inf") for _ in range(2))
    ips = {machine.get()["private_ip"] for machine in (stays, stops)}
    assert resolved(stays, f"{app.name}.internal") == ips
    stops.post("stop")
    stops.wait("stopped")
    assert resolved(stays, f"{app.name}.internal") == {stays.get()["private_ip"]}
    assert resolved(stays, f"{stops.id}.vm.{app.name}.internal") == set()
    stops.post("start")
    stops.wait("started")
    assert resolved(stays, f"{app.name}.internal") == ips


@shows("6PN", "an app with a network of its own is cut off from the others", "docs")
def test_networks_are_apart(fly: Fly, client: Machine) -> None:
    app = new_app(fly, network="own")
    server, neighbour = app.create(*HTTP, "::", "8080"), app.create("sleep", "inf")
    url = f"http://[{server.get()['private_ip']}]:8080/profile"
    fetched(neighbour, url)
    assert "No route to host" in fetch(client, url)["stderr"]
    assert resolved(client, f"{app.name}.internal") == set()


@shows("6PN", "a machine that has ended is out of reach, and reachable after a start", "ours")
def test_place_in_the_network_follows_the_machine(web: App, client: Machine) -> None:
    server = web.create(*HTTP, "::", "8080")
    url = f"http://[{server.get()['private_ip']}]:8080/profile"
    fetched(client, url)
    server.post("stop")
    server.wait("stopped")
    assert "No route to host" in fetch(client, url)["stderr"]
    server.post("start")
    server.wait("started")
    fetched(client, url)


@shows(
    "6PN", "a suspended machine is out of reach, and has no name; resume brings both back", "ours"
)
def test_suspended_machine_is_out_of_reach(web: App, client: Machine) -> None:
    server = web.create(*HTTP, "::", "8080")
    url = f"http://[{server.get()['private_ip']}]:8080/profile"
    fetched(client, url)
    server.post("suspend")
    server.wait("suspended")
    assert "No route to host" in fetch(client, url)["stderr"]
    assert resolved(client, f"{server.id}.vm.{web.name}.internal") == set()
    server.post("start")
    server.wait("started")
    assert fetch(client, url)["stdout"] == "200\n"


@shows("6PN", "the Machines API is at `http://_api.internal:4280`, with a token as outside", "docs")
def test_api_inside(fly: Fly, web: App, client: Machine) -> None:
    url = f"http://_api.internal:4280{client.path}"
    ask = (
        "import sys, urllib.request as u, urllib.error\n"
        "headers = dict(zip(*[iter(sys.argv[2:])] * 2))\n"
        "try: answer = u.urlopen(u.Request(sys.argv[1], headers=headers))\n"
        "except urllib.error.HTTPError as error: answer = error\n"
        "print(answer.status, answer.read().decode())"
    )

    def answer(*headers: str) -> str:
        said: str = client.exec("python3", "-c", ask, url, *headers)["stdout"]
        return said

    assert answer().startswith("401 ")
    assert answer("Authorization", "Bearer wrong").startswith("401 ")
    token = ("Authorization", f"Bearer {fly.emulator.token}")
    assert client.id in answer(*token)
    assert answer(*token, "Host", "attacker.example").startswith("403 ")


@shows("6PN", "the machine's name server is fdaa::3; `dns` of the config sets resolv.conf", "docs")
def test_resolver(web: App, client: Machine) -> None:
    assert client.exec("cat", "/etc/resolv.conf")["stdout"] == "nameserver fdaa::3\n"
    dns = {"searches": ["internal", "x.org"], "options": [{"name": "ndots", "value": "2"}]}
    machine = web.create("sleep", "inf", dns=dns)
    expected = "nameserver fdaa::3\nsearch internal x.org\noptions ndots:2\n"
    assert machine.exec("cat", "/etc/resolv.conf")["stdout"] == expected
    assert client.get()["private_ip"] in resolved(machine, f"fra.{web.name}")
    other = web.create("sleep", "inf", dns={"nameservers": ["192.0.2.1"]})
    assert other.exec("cat", "/etc/resolv.conf")["stdout"] == "nameserver 192.0.2.1\n"


MIRROR = (
    "import http.server, json, os\n"
    "class Handler(http.server.BaseHTTPRequestHandler):\n"
    " def do_GET(self):\n"
    "  body = json.dumps([os.environ['FLY_MACHINE_ID'], dict(self.headers)]).encode()\n"
    "  self.send_response(200)\n"
    "  self.send_header('content-length', str(len(body)))\n"
    "  self.end_headers()\n"
    "  self.wfile.write(body)\n"
    "http.server.ThreadingHTTPServer(('0.0.0.0', 8080), Handler).serve_forever()"
)
HTTP_PORT = {"port": 80, "handlers": ["http"]}
VISIT = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=60).read().decode())"


def flycast(fly: Fly, *ports: dict[str, Any], **fields: str) -> tuple[App, Machine, str]:
    """An app with a machine that mirrors requests, and a private address of it."""
    app = new_app(fly)
    service = {
        "protocol": "tcp",
        "internal_port": 8080,
        "autostart": True,
        "ports": list(ports) or [HTTP_PORT],
    }
    machine = app.create("python3", "-c", MIRROR, services=[service])
    ip = fly.ok("POST", f"{app.path}/ip_assignments", {"type": "private_v6", **fields})["ip"]
    return app, machine, ip


def visited(client: Machine, url: str) -> tuple[str, dict[str, str]]:
    """The machine that answers, and the headers that reached it."""
    said = eventually(lambda: client.exec("python3", "-c", VISIT, url)["stdout"])
    machine, headers = json.loads(said)
    return machine, {name.lower(): value for name, value in headers.items()}


@shows("flycast", "`APP.flycast` and the private address lead machines to the proxy", "docs")
@shows("flycast", "a request wakes a stopped machine, as one from outside does", "docs")
def test_flycast(fly: Fly, client: Machine) -> None:
    app, machine, ip = flycast(fly)
    assert resolved(client, f"{app.name}.flycast") == {ip}
    found, headers = visited(client, f"http://{app.name}.flycast/")
    assert (found, headers["host"]) == (machine.id, f"{app.name}.flycast")
    assert headers["fly-client-ip"] == client.get()["private_ip"]
    assert headers["x-forwarded-for"] == f"{client.get()['private_ip']}, {ip}"
    assert headers["fly-region"] == "fra"
    machine.post("stop")
    machine.wait("stopped")
    assert visited(client, f"http://[{ip}]/")[0] == machine.id
    assert machine.events()[1]["source"] == "proxy"
    assert "Connection refused" in fetch(client, f"http://[{ip}]:81/")["stderr"]
    fly.ok("DELETE", f"{app.path}/ip_assignments/{ip}")
    eventually(lambda: "No route to host" in fetch(client, f"http://[{ip}]/")["stderr"])
    assert resolved(client, f"{app.name}.flycast") == set()


@shows("flycast", "an address is in the default network, or in the one named with it", "docs")
def test_flycast_belongs_to_a_network(fly: Fly, client: Machine) -> None:
    app, machine, ip = flycast(fly, network="tenant")
    inside = new_app(fly, network="tenant").create("sleep", "inf")
    assert visited(inside, f"http://{app.name}.flycast/")[0] == machine.id
    assert resolved(client, f"{app.name}.flycast") == set()
    assert "No route to host" in fetch(client, f"http://[{ip}]/")["stderr"]


@shows("flycast", "ports without the handler `http` work, too", "docs")
def test_flycast_carries_tcp(fly: Fly, client: Machine) -> None:
    app, machine, _ = flycast(fly, {"port": 7})
    found, headers = visited(client, f"http://{app.name}.flycast:7/")
    assert (found, "fly-src" in headers) == (machine.id, False)


@shows("flycast", "a switch that was killed comes back with the addresses", "ours")
def test_flycast_outlives_the_switch(fly: Fly, client: Machine) -> None:
    app, machine, _ = flycast(fly)
    visited(client, f"http://{app.name}.flycast/")
    os.kill(switch_of(fly.emulator.pid), signal.SIGKILL)
    assert visited(client, f"http://{app.name}.flycast/")[0] == machine.id


def switch_of(pid: int) -> int:
    """The process below that owns the tunnels: the one without a control group of a machine."""
    for spawner in children(pid):
        for child in children(spawner):
            links = [str(fd.readlink()) for fd in Path(f"/proc/{child}/fd").iterdir()]
            if any("eventpoll" in link for link in links):
                return child
    raise AssertionError("no switch")


def children(pid: int) -> list[int]:
    return [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]


@shows("proxy", "`fly-src` says which machine a request comes from; machines can verify it", "docs")
def test_a_request_says_which_machine_it_comes_from(fly: Fly, client: Machine) -> None:
    app, machine, _ = flycast(fly)
    before = int(time.time())
    headers = visited(client, f"http://{app.name}.flycast/")[1]
    said = headers["fly-src"]
    found = re.fullmatch(r"instance=(\w+);app=([\w-]+);org=(\w+);ts=(\d+)", said)
    assert found
    assert found.groups()[:3] == (client.id, client.app.name, "personal")
    assert before <= int(found[4]) <= time.time()
    key = machine.exec("cat", "/.fly/fly-src.pub")["stdout"]
    assert len(key) == 64
    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))
    signature = base64.b64decode(headers["fly-src-signature"], validate=True)
    public.verify(signature, said.encode())
    with pytest.raises(InvalidSignature):
        public.verify(signature, said.replace("personal", "other").encode())
    outside = {"host": f"{app.name}.fly.dev", "fly-src": said, "fly-src-signature": "x"}
    shown = httpx.get(fly.emulator.proxy_url, headers=outside, trust_env=False).json()[1]
    assert not {name for name in shown if name.lower().startswith("fly-src")}


def test_ports_of_the_emulators_own_servers_stay_free(client: Machine) -> None:
    listen = "import socket\nfor p in 53, 4280: socket.create_server(('::', p), family=10)"
    assert client.exec("python3", "-c", listen)["exit_code"] == 0


def test_many_talk_at_once(web: App, client: Machine) -> None:
    """A megabyte each over ten connections, both ways, arrives whole."""
    echo = (
        "import socketserver\n"
        "class Echo(socketserver.BaseRequestHandler):\n"
        " def handle(self):\n"
        "  while piece := self.request.recv(65536): self.request.sendall(piece)\n"
        "socketserver.ThreadingTCPServer.address_family = 10\n"
        "socketserver.ThreadingTCPServer(('::', 7000), Echo).serve_forever()"
    )
    talk = (
        "import os, socket, sys, threading\n"
        "def one():\n"
        " sent, got = os.urandom(10**6), b''\n"
        " with socket.create_connection((sys.argv[1], 7000), 60) as s:\n"
        "  threading.Thread(target=s.sendall, args=(sent,)).start()\n"
        "  while len(got) < len(sent): got += s.recv(65536)\n"
        " print('same' if got == sent else 'different')\n"
        "for t in [threading.Thread(target=one) for _ in range(10)]: t.start()"
    )
    server = web.create("python3", "-c", echo)
    address = server.get()["private_ip"]
    probe = "import socket, sys; socket.create_connection((sys.argv[1], 7000))"
    eventually(lambda: client.exec("python3", "-c", probe, address)["exit_code"] == 0)
    assert client.exec("python3", "-c", talk, address)["stdout"].split() == ["same"] * 10
