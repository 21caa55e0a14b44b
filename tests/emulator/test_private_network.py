"""Machines that find and reach one another, as programs in them see it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

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
