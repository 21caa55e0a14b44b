"""Reaching what listens in the machine, the same over every way."""

from __future__ import annotations

import itertools
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import websockets
from websockets.sync.client import connect

from pytest_flymachines._http import Http, PoolTransport
from pytest_flymachines.errors import FlyMachinesError
from pytest_flymachines.sandbox import Attachment, Sandbox

pytestmark = pytest.mark.core

# with the process engine all machines share this computer's ports
PORTS = itertools.count(18500)

ECHO = """
import socket, sys, threading
server = socket.create_server(("", int(sys.argv[1])))
print("up", flush=True)
def serve(connection):
    while data := connection.recv(65536):
        connection.sendall(data)
    connection.sendall(b"[end]")
    connection.close()
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
"""


@pytest.fixture
def echo(sandbox: Sandbox) -> Iterator[int]:
    """A TCP server in the machine that sends everything back; its port."""
    port = next(PORTS)
    with sandbox.popen(["python3", "-c", ECHO, str(port)]) as process:
        process.wait_for_log("up")
        yield port


def run(*command: str, given: str = "") -> str:
    """What a program of this computer prints."""
    return subprocess.run(command, input=given, capture_output=True, text=True, check=True).stdout


def all_of(connection: socket.socket) -> bytes:
    data = b""
    while piece := connection.recv(65536):
        data += piece
    return data


class TestForward:
    def test_bytes_go_both_ways(self, sandbox: Sandbox, echo: int) -> None:
        raw = bytes(range(256)) * 400
        with sandbox.forward(echo) as forward:
            assert forward.host == "127.0.0.1"
            with socket.create_connection((forward.host, forward.port), 10) as connection:
                connection.sendall(raw)
                connection.shutdown(socket.SHUT_WR)
                assert all_of(connection) == raw + b"[end]"

    def test_several_connections_at_once(self, sandbox: Sandbox, echo: int) -> None:
        with sandbox.forward(echo) as forward:
            address = (forward.host, forward.port)
            connections = [socket.create_connection(address, 10) for _ in range(5)]
            for n, connection in enumerate(connections):
                connection.sendall(b"%d" % n)
            for n, connection in enumerate(connections):
                with connection:
                    assert connection.recv(10) == b"%d" % n

    def test_one_that_ends_leaves_others_to_the_same_port(
        self, sandbox: Sandbox, echo: int
    ) -> None:
        with sandbox.forward(echo) as first:
            with sandbox.forward(echo):
                pass
            with socket.create_connection((first.host, first.port), 10) as connection:
                connection.sendall(b"still there")
                assert connection.recv(100) == b"still there"

    def test_it_ends(self, sandbox: Sandbox, echo: int) -> None:
        with sandbox.forward(echo) as forward:
            pass
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((forward.host, forward.port), 10)

    @pytest.mark.parametrize("port", [0, -1, 65536])
    def test_no_port_at_all(self, sandbox: Sandbox, port: int) -> None:
        with pytest.raises(ValueError, match="1 to 65535"):
            sandbox.forward(port)

    def test_a_database(self, sandbox: Sandbox) -> None:
        if not shutil.which("redis-server"):
            pytest.skip("needs redis (Debian: package redis-server)")
        port = next(PORTS)
        options = ["--port", str(port), "--save", "", "--protected-mode", "no"]
        with sandbox.popen(["redis-server", *options]) as server, sandbox.forward(port) as there:
            server.wait_for_port(port)
            client = ["redis-cli", "-h", there.host, "-p", str(there.port)]
            subscriber = subprocess.Popen(
                [*client, "subscribe", "news"], stdout=subprocess.PIPE, text=True
            )
            assert subscriber.stdout is not None
            with subscriber:
                assert [subscriber.stdout.readline() for _ in range(3)][1:] == ["news\n", "1\n"]
                sets = "".join(f"SET key{n} {'x' * 200}\r\n" for n in range(20_000))
                assert "errors: 0, replies: 20000" in run(*client, "--pipe", given=sets)
                assert run(*client, "dbsize") == "20000\n"
                assert run(*client, "get", "key19999") == "x" * 200 + "\n"
                run(*client, "publish", "news", "something")
                assert subscriber.stdout.readline() == "message\n"
                subscriber.terminate()


WEBSOCKETS = """
import sys
from websockets.sync.server import serve
def echo(connection):
    for message in connection:
        connection.send(message)
with serve(echo, "", int(sys.argv[1])) as server:
    print("up", flush=True)
    server.serve_forever()
"""


class TestUrl:
    def test_http(self, sandbox: Sandbox) -> None:
        port = next(PORTS)
        sandbox.write_file("page.txt", "the page")
        with sandbox.popen(["python3", "-m", "http.server", str(port)]) as process:
            process.wait_for_port(port)
            url = sandbox.url(port)
            transport = PoolTransport()
            answer = Http(transport, url).request("GET", "/page.txt")
            transport.close()
        assert answer.text == "the page"
        assert sandbox.url(port) == url

    def test_websockets(self, sandbox: Sandbox) -> None:
        port = next(PORTS)
        here = Path(websockets.__file__).parent
        sandbox.upload(here, "lib/websockets", exclude=["__pycache__", "*.so", "*.c", "legacy"])
        server = ["python3", "-c", WEBSOCKETS, str(port)]
        with sandbox.popen(server, env={"PYTHONPATH": f"{sandbox.workdir}/lib"}) as process:
            process.wait_for_log("up")
            url = sandbox.url(port).replace("http", "ws", 1)
            with connect(f"{url}/any/path") as one, connect(url) as other:
                for message in ("é" * 100_000, bytes(range(256)) * 100, ""):
                    one.send(message)
                    other.send("beside it")
                    assert one.recv(30) == message
                    assert other.recv(30) == "beside it"
                one.ping().wait(30)

    def test_it_follows_the_handle_to_another_machine(self, sandbox: Sandbox, echo: int) -> None:
        handle = Sandbox(sandbox.attachment)
        handle.url(echo)
        forward = handle._forwards[echo]
        handle.attach(sandbox.attachment)
        assert handle._forwards == {}
        handle.url(echo)
        assert handle._forwards[echo] is not forward
        handle.close_forwards()

    def test_there_may_be_no_way(self, sandbox: Sandbox) -> None:
        class Closed:
            """A channel that knows nothing of ports."""

        at = {**vars(sandbox.attachment), "ports": None, "channel": Closed()}
        with pytest.raises(FlyMachinesError, match="no way to port 8000"):
            Sandbox(Attachment(**at)).url(8000)

    def test_a_public_port_of_the_spec(self, sandbox: Sandbox) -> None:
        class Closed:
            """A channel that knows nothing of ports."""

        spec = sandbox.attachment.spec.replace(ports=(8000,))
        at = {**vars(sandbox.attachment), "ports": None, "channel": Closed(), "spec": spec}
        assert Sandbox(Attachment(**at)).url(8000) == "https://handle-tests.fly.dev:8000"
