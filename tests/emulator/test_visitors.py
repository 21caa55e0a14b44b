"""Clients that nobody here wrote visit real machines through the proxy: psql, websockets, httpx."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from websockets.sync.client import connect

from pytest_flymachines.emulator.launch import EmulatorProcess, launch
from tests.emulator.conftest import App, Machine, eventually
from tests.emulator.fidelity import shows

# An echo of WebSocket messages up to 64 kB, and of the headers of other requests, by hand: a
# machine has nothing but the standard library.
ECHO = r"""
import base64, hashlib, json, os, socketserver
class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        self.rfile.readline()
        headers = {}
        while line := self.rfile.readline().decode().strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        headers["machine"] = os.environ["FLY_MACHINE_ID"]
        if "sec-websocket-key" not in headers:
            body = json.dumps(headers).encode()
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            self.wfile.write(head.encode() + body)
            return
        magic = headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(magic.encode()).digest()).decode()
        self.wfile.write(("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n").encode())
        while head := self.rfile.read(2):
            size = head[1] & 127
            extended = self.rfile.read(2) if size == 126 else b""
            size = int.from_bytes(extended, "big") if extended else size
            mask = self.rfile.read(4)
            data = bytes(b ^ mask[i % 4] for i, b in enumerate(self.rfile.read(size)))
            self.wfile.write(bytes([head[0], head[1] & 127]) + extended + data)
            if head[0] & 15 == 8:
                return
socketserver.ThreadingTCPServer(("0.0.0.0", 8080), Echo).serve_forever()
"""
# Of a postgres that listens for TCP without TLS, as user postgres; no root may run one.
POSTGRES = r"""
set -e
mkdir /db && chown postgres /db
BIN=$(ls -d /usr/lib/postgresql/*/bin | tail -1)
exec su postgres -s /bin/sh -c "$BIN/initdb -D /db/data -A trust >/dev/null &&
  echo host all all all trust >> /db/data/pg_hba.conf &&
  exec $BIN/postgres -D /db/data -k /tmp -c listen_addresses=0.0.0.0 -c ssl=off"
"""


@pytest.fixture(scope="module")
def emulator() -> Iterator[EmulatorProcess]:
    with launch(engine="bubblewrap") as process:
        yield process


@pytest.fixture
def trusted(app: App, tmp_path: Path) -> Path:
    """The authority behind the certificates of the proxy."""
    path = tmp_path / "ca.pem"
    path.write_text(app.fly.control.get("/ca.pem").text)
    return path


def serve(app: App, *command: str, port: int, external: dict[str, Any], **config: Any) -> Machine:
    services = [{"protocol": "tcp", "internal_port": port, "ports": [external]}]
    return app.create(*command, services=services, **config)


def address(app: App, port: int) -> tuple[str, int]:
    """Where an external port of the app listens."""
    ports = app.fly.control.get("/services").json()[app.name]
    host, _, number = ports[str(port)].rpartition(":")
    return host, int(number)


HTTPS: dict[str, Any] = {"port": 443, "handlers": ["tls", "http"]}


@shows("proxy", "WebSockets pass, plain and over TLS, also to a machine that is forced", "docs")
def test_websockets(app: App, trusted: Path) -> None:
    service = {
        "protocol": "tcp",
        "internal_port": 8080,
        "ports": [{"port": 80, "handlers": ["http"]}, HTTPS],
    }
    machines = [app.create("python3", "-c", ECHO, services=[service]) for _ in range(2)]
    proxy = urlsplit(app.fly.emulator.proxy_url)
    host = f"{app.name}.fly.dev"
    for machine in machines:
        forced = {"fly-force-instance-id": machine.id}
        plain = socket.create_connection((str(proxy.hostname), proxy.port))
        with connect(f"ws://{host}/", sock=plain, additional_headers=forced) as visitor:
            for message in ("ü", "x" * 60_000):
                visitor.send(message)
                assert visitor.recv(timeout=60) == message
        context = ssl.create_default_context(cafile=str(trusted))
        secured = socket.create_connection(address(app, 443))
        with connect(
            f"wss://{host}/", sock=secured, ssl=context, additional_headers=forced
        ) as visitor:
            visitor.send(b"\0\1")
            assert visitor.recv(timeout=60) == b"\0\1"


@shows("proxy", "a port with TLS and HTTP offers HTTP/2, and adds the `Fly-*` headers", "docs")
def test_http2(app: App, trusted: Path) -> None:
    machine = serve(app, "python3", "-c", ECHO, port=8080, external=HTTPS, region="fra")
    host, port = address(app, 443)
    context = ssl.create_default_context(cafile=str(trusted))
    with httpx.Client(http2=True, verify=context, trust_env=False, timeout=60) as visitor:
        answer = visitor.get(f"https://{host}:{port}/", headers={"fly-prefer-region": "fra"})
    assert (answer.http_version, answer.status_code) == ("HTTP/2", 200)
    seen = answer.json()
    assert seen["machine"] == machine.id
    assert seen["fly-client-ip"] == "127.0.0.1"
    assert seen["x-forwarded-proto"] == "https"
    assert {"fly-region", "fly-request-id", "fly-forwarded-port", "via"} <= set(seen)
    assert answer.headers["via"] == "2 fly.io"
    assert answer.headers["server"].startswith("Fly/")


@shows("proxy", "`pg_tls`: psql asks for TLS, checks the certificate, and gets its answer", "docs")
@pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/usr/lib/postgresql").is_dir() or shutil.which("psql") is None,
    reason="needs root, and PostgreSQL in /usr (Debian: package postgresql)",
)
def test_psql(app: App, trusted: Path) -> None:
    external = {"port": 5432, "handlers": ["pg_tls"]}
    machine = serve(app, "sh", "-c", POSTGRES, port=5432, external=external)
    host, port = address(app, 5432)

    def psql(mode: str) -> subprocess.CompletedProcess[str]:
        where = f"host={app.name}.fly.dev hostaddr={host} port={port} user=postgres dbname=postgres"
        secure = f"sslmode={mode} sslrootcert={trusted} connect_timeout=60"
        command = ["psql", f"{where} {secure}", "-Atc", "select 6 * 7"]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    eventually(lambda: psql("verify-full").returncode == 0)
    assert psql("verify-full").stdout == "42\n"
    refused = psql("disable")
    assert refused.returncode == 2
    assert "this port takes TLS connections only" in refused.stderr
    assert machine.state == "started"
