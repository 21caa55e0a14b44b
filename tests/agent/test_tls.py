"""WebSockets over TLS, as through Fly's proxy: a real TLS front before the real agent."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pytest_flymachines._clock import SystemClock
from pytest_flymachines.agent.forward import PortForward
from pytest_flymachines.agent.terminal import CookTerminal
from pytest_flymachines.agent.websocket import TextSocket, TlsWebSocket, open_websocket
from pytest_flymachines.errors import AgentUnavailable
from tests.agent.running import PREFIX, RunningAgent
from tests.agent.test_cook_terminal import read_all
from tests.agent.test_forward import dial, receive_all, server


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for localhost, with its key in the same file."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    argv += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*argv, "-keyout", path, "-out", f"{path}.crt"], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + Path(f"{path}.crt").read_bytes())
    return path


def pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def url(agent: RunningAgent, certificate: Path) -> Iterator[str]:
    """Where the agent answers behind TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def front(raw: socket.socket) -> None:
        with (
            suppress(OSError),
            context.wrap_socket(raw, server_side=True) as tls,
            agent.connect() as inner,
        ):
            back = threading.Thread(target=pump, args=(inner, tls), daemon=True)
            back.start()
            pump(tls, inner)
            back.join()

    with server(front) as port:
        yield f"https://localhost:{port}"


@pytest.fixture
def trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}.crt")


@pytest.mark.usefixtures("trusted")
def test_a_terminal_works_over_tls(agent: RunningAgent, url: str) -> None:
    websocket = open_websocket(url, "/", agent.headers)
    assert isinstance(websocket, TlsWebSocket)
    terminal = CookTerminal(TextSocket(websocket), "tls", SystemClock())
    terminal.create("seq 50000")
    assert read_all(terminal) == b"".join(b"%d\r\n" % n for n in range(1, 50001))
    assert terminal.exit_code == 0
    terminal.close()


@pytest.mark.usefixtures("trusted")
def test_a_forward_carries_megabytes_over_tls(agent: RunningAgent, url: str) -> None:
    data = bytes(range(256)) * 12_000

    def answer(sock: socket.socket) -> None:
        sock.sendall(receive_all(sock)[::-1])

    with server(answer) as port:
        path = f"{PREFIX}/agent/forward/{port}"
        with PortForward(url, path, agent.headers) as forward, dial(forward) as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            assert receive_all(sock) == data[::-1]


def test_a_certificate_that_is_not_trusted_is_refused(agent: RunningAgent, url: str) -> None:
    with pytest.raises(AgentUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        open_websocket(url, "/", agent.headers)
