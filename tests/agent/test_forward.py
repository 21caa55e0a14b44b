"""TCP through the agent's WebSocket, to real servers on loopback."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from pytest_flymachines.agent.channel import AgentChannel
from pytest_flymachines.agent.forward import PortForward
from tests.agent.running import RunningAgent, eventually


@contextlib.contextmanager
def server(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A TCP server on a free port; each connection has a thread."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=run, args=(sock,), daemon=True).start()

    def run(sock: socket.socket) -> None:
        with sock:
            serve(sock)

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()


def echo(sock: socket.socket) -> None:
    while data := sock.recv(65536):
        sock.sendall(data)


def dial(forward: PortForward) -> socket.socket:
    return socket.create_connection((forward.host, forward.port), 30)


def receive_all(sock: socket.socket) -> bytes:
    data = b""
    while piece := sock.recv(1 << 20):
        data += piece
    return data


def test_bytes_go_both_ways_and_each_side_may_end_first(channel: AgentChannel) -> None:
    with server(echo) as port, channel.forward(port) as forward:
        assert forward.host == "127.0.0.1"
        with dial(forward) as sock:
            sock.sendall(b"hello")
            assert sock.recv(100) == b"hello"
            sock.sendall(b"last words")
            sock.shutdown(socket.SHUT_WR)
            assert receive_all(sock) == b"last words"


def test_an_answer_may_follow_the_end_of_the_question(channel: AgentChannel) -> None:
    """As with `nc -N`: TCP can be closed in one direction, a WebSocket cannot."""

    def digest(sock: socket.socket) -> None:
        sock.sendall(hashlib.sha256(receive_all(sock)).digest())

    question = os.urandom(5 << 20)
    with (
        server(digest) as port,
        channel.forward(port) as forward,
        dial(forward) as sock,
    ):
        sock.sendall(question)
        sock.shutdown(socket.SHUT_WR)
        assert receive_all(sock) == hashlib.sha256(question).digest()


def test_a_server_that_speaks_first_and_closes(channel: AgentChannel) -> None:
    with (
        server(lambda sock: sock.sendall(b"greeting")) as port,
        channel.forward(port) as forward,
        dial(forward) as sock,
    ):
        assert receive_all(sock) == b"greeting"


def test_a_peer_that_does_not_read_stops_the_sender(channel: AgentChannel) -> None:
    """Nothing between them keeps more than its buffers; all arrives once it is read."""
    data = os.urandom(1 << 20) * 24
    go = threading.Event()

    def slow(sock: socket.socket) -> None:
        go.wait(30)
        sock.sendall(hashlib.sha256(receive_all(sock)).digest())

    with (
        server(slow) as port,
        channel.forward(port) as forward,
        dial(forward) as sock,
    ):
        sock.settimeout(0.5)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < len(data):
                sent += sock.send(data[sent : sent + 65536])
        assert sent < len(data)
        go.set()
        sock.settimeout(30)
        sock.sendall(data[sent:])
        sock.shutdown(socket.SHUT_WR)
        assert receive_all(sock) == hashlib.sha256(data).digest()


def test_many_connections_at_once(channel: AgentChannel, agent: RunningAgent) -> None:
    before = agent.threads()
    with server(echo) as port, channel.forward(port) as forward:
        socks = [dial(forward) for _ in range(20)]
        for number, sock in enumerate(socks):
            sock.sendall(b"%02d" % number)
        assert [sock.recv(2) for sock in socks] == [b"%02d" % n for n in range(20)]
        for sock in socks:
            sock.close()
        eventually(lambda: agent.threads() <= before + 1)


def test_a_port_that_is_closed_resets_and_says_why(channel: AgentChannel) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with channel.forward(port) as forward:
        with dial(forward) as sock, pytest.raises(ConnectionResetError):
            sock.recv(1)
        assert "Connection refused" in str(forward.error)


def test_no_port_is_refused(channel: AgentChannel) -> None:
    with channel.forward(99999) as forward:
        with dial(forward) as sock, pytest.raises(ConnectionResetError):
            sock.recv(1)
        assert "expected a port from 1 to 65535" in str(forward.error)


def test_closing_cuts_what_is_connected(channel: AgentChannel) -> None:
    with server(echo) as port:
        forward = channel.forward(port)
        with dial(forward) as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
            forward.close()
            assert sock.recv(1) == b""
        with pytest.raises(ConnectionRefusedError):
            dial(forward)


def test_the_token_is_not_in_the_repr(channel: AgentChannel, agent: RunningAgent) -> None:
    with channel.forward(80) as forward:
        assert agent.token
        assert agent.token not in repr(forward) + repr(channel)
        assert f"forward/{80}" in repr(forward)
