"""The emulator and its proxy together: routing, autostart, autostop, forwards, leases, checks."""

from __future__ import annotations

import base64
import contextlib
import functools
import socket
import sys
from typing import Any

import httpx
import pytest

from tests.emulator.conftest import App, Fly, Machine, Serve, eventually
from tests.emulator.fidelity import shows
from tests.emulator.surprises import surprise

SERVER = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = os.environ["FLY_MACHINE_ID"].encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture
def port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free: int = probe.getsockname()[1]
    return free


def web(app: App, port: int, config: dict[str, Any] | None = None, **service: Any) -> Machine:
    """A machine with a web server behind ports 80 and 443."""
    services = [
        {
            "protocol": "tcp",
            "internal_port": port,
            "ports": [
                {"port": 80, "handlers": ["http"]},
                {"port": 443, "handlers": ["tls", "http"]},
            ],
            **service,
        }
    ]
    return app.create(sys.executable, "-c", SERVER, str(port), services=services, **(config or {}))


def visit(app: App, **headers: str) -> httpx.Response:
    headers = {"host": f"{app.name}.fly.dev", **headers}
    return httpx.get(app.fly.emulator.proxy_url, headers=headers, timeout=30, trust_env=False)


@shows(
    "proxy",
    "`<app>.fly.dev` leads to a started machine; `fly-force-instance-id` to that one",
    "docs",
)
@shows("POST M/cordon", "a cordoned machine gets no traffic", "docs")
def test_requests_reach_machines(app: App, port: int) -> None:
    machine = web(app, port)
    assert visit(app).text == machine.id
    assert visit(app, **{"fly-force-instance-id": machine.id}).text == machine.id
    machine.post("cordon")
    assert visit(app).status_code >= 500
    machine.post("uncordon")
    assert visit(app).text == machine.id
    listing = app.fly.control.get("/services").json()[app.name]
    assert set(listing) == {"80", "443"}
    assert httpx.get(f"http://{listing['80']}", trust_env=False).text == machine.id
    assert "BEGIN CERTIFICATE" in app.fly.control.get("/ca.pem").text
    app.fly.ok("DELETE", app.path)
    assert visit(app).status_code >= 400
    assert app.name not in app.fly.control.get("/services").json()


@shows(
    "proxy",
    "`autostart` wakes a stopped or suspended machine; a leased one cannot be woken",
    "docs",
)
@pytest.mark.parametrize("how", ["stop", "suspend"])
def test_autostart(app: App, port: int, how: str) -> None:
    machine = web(app, port, autostart=True)
    visit(app)
    machine.post(how)
    machine.wait("stopped" if how == "stop" else "suspended")
    lease = app.fly.ok("POST", f"{machine.path}/lease?ttl=60")["data"]["nonce"]
    assert visit(app).status_code >= 500
    app.fly.ok("DELETE", f"{machine.path}/lease", headers={"fly-machine-lease-nonce": lease})
    assert visit(app).text == machine.id
    assert machine.state == "started"
    assert machine.events()[1]["source"] == "proxy"


@surprise(28, "tests/emulator/test_surprises.py: test_a_sandbox_is_never_stopped_by_the_proxy")
@shows("proxy", "`autostop` stops or suspends a machine without traffic, in exec or not", "docs")
@pytest.mark.parametrize(("autostop", "state"), [("stop", "stopped"), ("suspend", "suspended")])
def test_autostop(serve: Serve, port: int, autostop: str, state: str) -> None:
    with serve("--app", "idle", autostop_every_s=0.2, autostop_idle_s=0.2) as emulator:
        fly = Fly(emulator)
        app = App(fly, "idle")
        machine = web(app, port, autostop=autostop, autostart=True)
        machine.wait(state)
        assert visit(app).text == machine.id
        newest = machine.events()[0]["id"]
        machine.wait(state, from_event_id=newest)
        fly.close()


@shows("proxy", "a service whose check fails gets no traffic", "docs")
def test_failing_check_keeps_traffic_away(app: App, port: int) -> None:
    with socket.socket() as checked:
        checked.bind(("127.0.0.1", 0))
        check = {"type": "tcp", "port": checked.getsockname()[1], "interval": "50ms"}
        machine = web(app, port, checks=[check])
        assert visit(app).status_code >= 500
        checked.listen()
        machine.passing()
        assert visit(app).text == machine.id


@shows(
    "proxy",
    "`statics`: a GET or HEAD below `url_prefix` is answered with the file below `guest_path` of "
    "the machine, and goes to the program where there is none: no directory, no symbolic link",
    "docs",
)
@shows("proxy", "a static with a `tigris_bucket` is left to the program", "ours")
def test_statics(app: App, port: int) -> None:
    def file(path: str, content: bytes) -> dict[str, Any]:
        return {"guest_path": path, "raw_value": base64.b64encode(content).decode()}

    machine = web(
        app,
        port,
        config={
            "files": [
                file("/site/index.html", b"<p>hello"),
                file("/other/index.html", b"other"),
                file("/secret", b"secret"),
            ],
            "statics": [
                {"guest_path": "/site", "url_prefix": "/public", "index_document": "index.html"},
                {"guest_path": "/other", "url_prefix": "/public/more/"},
                {"guest_path": "/site", "url_prefix": "/bucket", "tigris_bucket": "assets"},
            ],
        },
    )
    make = (
        "ln -s index.html site/link; mkdir 'site/a b'; yes 1234567 | head -c 700000 >'site/a b/big'"
    )
    machine.exec("sh", "-c", make)

    def get(path: str, method: str = "GET") -> httpx.Response:
        url = httpx.URL(app.fly.emulator.proxy_url).copy_with(raw_path=path.encode())
        headers = {"host": f"{app.name}.fly.dev"}
        return httpx.request(method, url, headers=headers, timeout=30, trust_env=False)

    page = get("/public/index.html?v=1")
    assert (page.text, page.headers["content-type"]) == ("<p>hello", "text/html")
    assert page.headers["fly-request-id"]
    assert get("/public/a%20b/big").text == "1234567\n" * 87_500
    assert get("/public/more/index.html").text == "other"
    head = get("/public/index.html", "HEAD")
    assert (head.status_code, head.headers["content-length"], head.content) == (200, "8", b"")
    for path in (
        *("/public", "/public/", "/public/none", "/public/link", "/public//index.html", "/site/a"),
        *("/public/../secret", "/public/%2e%2e/secret", "/bucket/index.html", "/publicindex.html"),
    ):
        assert get(path).text == machine.id, path
    assert get("/public/index.html", "POST").status_code == 501, "the program knows no POST"


ECHO = """
import socket, sys, threading
def serve(c):
    while piece := c.recv(999): c.sendall(piece)
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True: threading.Thread(target=serve, args=server.accept()[:1]).start()
"""


@shows("POST M/suspend", "connections through the proxy end, and new ones are refused", "docs")
def test_suspend_ends_connections(app: App, port: int) -> None:
    services = [{"internal_port": port, "autostart": False, "ports": [{"port": 7000}]}]
    machine = app.create(sys.executable, "-c", ECHO, str(port), services=services)
    control = app.fly.control
    wanted = {"app": app.name, "machine": machine.id, "port": port}
    forward = control.post("/forwards", json=wanted).json()
    service, _, number = control.get("/services").json()[app.name]["7000"].partition(":")
    ways = [(forward["host"], forward["port"]), (service, int(number))]

    def talks(way: tuple[str, int]) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(way, 60) as visitor:
            visitor.sendall(b"x")
            return visitor.recv(1) == b"x"
        return False

    for way in ways:
        eventually(functools.partial(talks, way))
    visitors = [socket.create_connection(way, 60) for way in ways]
    for visitor in visitors:
        visitor.sendall(b"x")
        assert visitor.recv(1) == b"x"
    machine.post("suspend")
    for visitor in visitors:
        assert visitor.recv(1) == b""
        visitor.close()
    assert machine.wait("suspended")["state"] == "suspended"
    assert not any(map(talks, ways))
    machine.post("start")
    machine.wait("started")
    assert all(map(talks, ways))
    assert control.request("DELETE", "/forwards", json=wanted).status_code == 204


def test_forwards(app: App, port: int) -> None:
    machine = web(app, port)
    visit(app)
    control = app.fly.control
    body = {"app": app.name, "machine": machine.id, "port": port}
    made = control.post("/forwards", json=body)
    assert made.status_code == 201
    url = f"http://{made.json()['host']}:{made.json()['port']}"
    assert httpx.get(url, trust_env=False).text == machine.id
    assert control.post("/forwards", json=body).json() == made.json()
    assert [item["local_port"] for item in control.get("/forwards").json()] == [made.json()["port"]]
    for wrong, status in (
        ({**body, "machine": "00000000000000"}, 404),
        ({**body, "app": "other"}, 404),
        ({**body, "port": 0}, 400),
        ({"port": 1}, 400),
    ):
        assert control.post("/forwards", json=wrong).status_code == status
    assert control.request("DELETE", "/forwards", json=body).status_code == 204
    assert control.request("DELETE", "/forwards", json=body).status_code == 404
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, trust_env=False)
    control.post("/forwards", json=body)
    assert control.delete("/forwards").status_code == 204
    assert control.get("/forwards").json() == []
