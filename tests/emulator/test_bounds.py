"""What an emulator refuses to hold, whom it listens to, and how it compares tokens."""

from __future__ import annotations

import hmac
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.requests import Request

from pytest_flymachines.emulator import auth
from pytest_flymachines.emulator.answers import Problem
from pytest_flymachines.emulator.launch import EmulatorProcess
from tests.emulator.conftest import App, Fly, Serve
from tests.emulator.fidelity import shows


@pytest.fixture(scope="module")
def emulator(serve: Serve) -> Iterator[EmulatorProcess]:
    """One of its own: it is filled to the brim."""
    with serve() as process:
        yield process


@shows("security", "at most 500 machines, those that are destroyed not counted", "ours")
def test_number_of_machines(app: App) -> None:
    body = {"config": {"image": "alpine"}, "skip_launch": True}
    made = [app.fly.ok("POST", app.machines, body)["id"] for _ in range(500)]
    refused = app.fly("POST", app.machines, body)
    assert refused.status_code == 422
    assert refused.json()["status"] == "insufficient_capacity"
    for machine in made[:2]:
        app.fly.ok("GET", f"{app.machines}/{machine}/wait?state=stopped&timeout=60")
        app.fly.ok("DELETE", f"{app.machines}/{machine}")
        app.fly.ok("GET", f"{app.machines}/{machine}/wait?state=destroyed&timeout=60")
    app.fly.ok("POST", app.machines, body)


@shows("security", "at most 1000 volumes, 1000 secrets of an app, 1000 apps", "ours")
def test_numbers_of_other_things(serve: Serve) -> None:
    with serve("--app", "full") as emulator:
        fly = Fly(emulator)
        app = App(fly, "full")
        fill(app, f"{app.path}/volumes", [{"name": "data"}] * 1000)
        status, text = app.fly.error("POST", f"{app.path}/volumes", {"name": "data"})
        assert (status, text) == (422, "this emulator holds at most 1000 volumes")
        values = {f"S{number}": "x" for number in range(1000)}
        app.fly.ok("POST", f"{app.path}/secrets", {"values": values})
        status, text = app.fly.error("POST", f"{app.path}/secrets", {"values": {"ONE_MORE": "x"}})
        assert (status, text) == (400, "an app cannot have more than 1000 secrets")
        apps = len(app.fly.ok("GET", "/v1/apps?org_slug=personal")["apps"])
        body = {"name": "one-more", "org_slug": "personal"}
        fill(app, "/v1/apps", [{**body, "name": f"more-{number}"} for number in range(1000 - apps)])
        status, text = app.fly.error("POST", "/v1/apps", body)
        assert (status, text) == (422, "this emulator holds at most 1000 apps")
        fly.close()


def fill(app: App, path: str, bodies: list[dict[str, str]]) -> None:
    """As `app.fly`, but the shape of so many equal answers is not looked at."""
    for body in bodies:
        app.fly.http.post(path, json=body).raise_for_status()


@shows("security", "at most 1000 faults and 1000 forwards", "ours")
def test_numbers_of_the_control_interface(serve: Serve) -> None:
    with serve("--app", "bounded") as emulator:
        fly = Fly(emulator)
        machine = App(fly, "bounded").create("sleep", "inf", wait=None)
        wanted = {"app": "bounded", "machine": machine.id}
        for number in range(1000):
            made = fly.control.post("/forwards", json={**wanted, "port": number + 1})
            assert made.status_code == 201
            assert fly.control.post("/faults", json={"spec": "capacity"}).status_code == 201
        assert fly.control.post("/forwards", json={**wanted, "port": 5}).status_code == 201
        assert fly.control.post("/forwards", json={**wanted, "port": 5000}).status_code == 409
        assert fly.control.post("/faults", json={"spec": "capacity"}).status_code == 409
        fly.close()


@shows("security", "it listens on 127.0.0.1 and nowhere else", "ours")
def test_it_listens_on_loopback_only(serve: Serve) -> None:
    with serve("--app", "open") as emulator:
        fly = Fly(emulator)
        app = App(fly, "open")
        ports = [{"port": 5432}, {"port": 443, "handlers": ["tls", "http"]}]
        machine = app.create("sleep", "inf", services=[{"internal_port": 80, "ports": ports}])
        wanted = {"app": "open", "machine": machine.id, "port": 80}
        forward = fly.control.post("/forwards", json=wanted).json()
        known = {urlsplit(url).port for url in (emulator.api_url, emulator.proxy_url)}
        listening = listeners(emulator.pid)
        fly.close()
    assert known | {forward["port"]} <= {port for _, port in listening}
    assert len(listening) >= 6  # control, and the two ports of the service
    assert {address for address, _ in listening} == {"0100007F"}


@shows(
    "security",
    "loopback only unless told, and then by address or by a name that is allowed",
    "ours",
)
def test_it_listens_where_it_is_told(serve: Serve) -> None:
    with serve("--app", "open", "--host", "0.0.0.0", "--allow-host", "Emulator.test") as emulator:
        fly = Fly(emulator)
        forward = fly.control.post("/forwards", json={"app": "open", "machine": "0", "port": 80})
        assert forward.status_code == 404
        listening = listeners(emulator.pid)
        token = {"authorization": f"Bearer {emulator.token}"}
        port = urlsplit(emulator.api_url).port
        for host, status in (
            (f"127.0.0.2:{port}", 200),
            ("192.0.2.7:80", 200),
            ("emulator.test:1", 200),
            ("evil.example", 421),
            ("192.0.2.7.evil.example", 421),
        ):
            for url in (f"http://127.0.0.2:{port}/v1/apps/open", f"{emulator.control_url}/health"):
                answer = httpx.get(url, headers={**token, "host": host}, trust_env=False)
                assert answer.status_code == status, host
        fly.close()
    assert {address for address, _ in listening} == {"00000000"}
    assert emulator.api_url.startswith("http://127.0.0.1:")


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--host", "nowhere", "'nowhere' is not an IPv4 address of this computer"),
        ("--host", "192.0.2.7", "--host=192.0.2.7: this computer does not have that address"),
        ("--allow-host", "a:80", "'a:80' is not a name of a host, without a port"),
    ],
)
def test_an_address_that_will_not_do_is_named(option: str, value: str, told: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest_flymachines.emulator", option, value],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode != 0
    assert told in " ".join(done.stderr.split())


def listeners(pid: int) -> set[tuple[str, int]]:
    """Address, as the kernel writes it, and port of each socket of a process that listens."""
    links = {str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.is_symlink()}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            columns = line.split()
            if columns[3] == "0A" and f"socket:[{columns[9]}]" in links:
                address, _, port = columns[1].partition(":")
                found.add((address, int(port, 16)))
    return found


@shows("security", "tokens are compared in constant time, each with every one that is good", "ours")
def test_tokens_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = auth.Tokens("the-token")
    deploy = [tokens.deploy_token("app") for _ in range(3)]
    compared: list[bytes] = []

    def compare(given: bytes, good: bytes) -> bool:
        compared.append(good)
        return given == good

    monkeypatch.setattr(hmac, "compare_digest", compare)
    everyone = [token.encode() for token in ("the-token", *deploy)]

    def request(token: str) -> Request:
        header = (b"authorization", f"Bearer {token}".encode())
        return Request({"type": "http", "headers": [header]})

    for token, app in (("the-token", None), (deploy[0], "app")):
        compared.clear()
        assert tokens.access(request(token)).app == app
        assert set(compared) == set(everyone)
    with pytest.raises(Problem):
        tokens.access(request("wrong"))
    with pytest.raises(Problem):  # good for its app, and not for the control interface
        tokens.access(request(deploy[0]), control=True)
