"""cook-agent's WebSocket protocol, message by message, and our extras to it."""

from __future__ import annotations

import base64
import json
import os
import select
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    CloseConnection,
    Ping,
    Pong,
    RejectConnection,
    Request,
    TextMessage,
)

from tests.agent.running import RunningAgent, eventually, running_agent


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAgent]:
    """An agent without authentication, as cook-agent has none."""
    with running_agent(tmp_path_factory.mktemp("agent"), token=None) as running:
        yield running


class Client:
    """A client of the protocol, of wsproto and a socket alone."""

    def __init__(self, agent: RunningAgent, path: str = "/", token: str | None = None) -> None:
        self.sock = agent.connect()
        self.websocket = WSConnection(ConnectionType.CLIENT)
        self.messages: list[dict[str, Any]] = []
        self.events: list[Any] = []
        self._text = ""
        headers = [(b"authorization", f"Bearer {token}".encode())] if token else []
        host = f"127.0.0.1:{agent.port}"
        request = Request(host=host, target=path, extra_headers=headers)
        self.sock.sendall(self.websocket.send(request))
        while not self.events:
            self._read()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def _read(self) -> None:
        self.websocket.receive_data(self.sock.recv(65536) or None)
        for event in self.websocket.events():
            if isinstance(event, TextMessage):
                self._text += event.data
                if event.message_finished:
                    self.messages.append(json.loads(self._text))
                    self._text = ""
            else:
                self.events.append(event)

    def send(self, **message: Any) -> None:
        self.send_text(json.dumps(message))

    def send_text(self, text: str) -> None:
        self.sock.sendall(self.websocket.send(TextMessage(text)))

    def type(self, session: str, data: bytes) -> None:
        self.send(type="input", session_id=session, data=base64.b64encode(data).decode())

    def next(self, kind: str) -> dict[str, Any]:
        """The next message of a kind; those before it stay."""
        while True:
            for message in self.messages:
                if message["type"] == kind:
                    self.messages.remove(message)
                    return message
            self._read()

    def ask(self, **message: Any) -> dict[str, Any]:
        """Send, and the answer, which output may come before."""
        self.send(**message)
        while True:
            for answer in self.messages:
                if answer["type"] in ("ok", "error", "list"):
                    self.messages.remove(answer)
                    return answer
            self._read()

    def output_until(self, wanted: bytes) -> bytes:
        output = b""
        while wanted not in output:
            message = self.next("output")
            piece = base64.b64decode(message["data"])
            assert 0 < len(piece) <= 4096
            output += piece
        return output

    def silent(self, seconds: float) -> bool:
        return not self.messages and not select.select([self.sock], [], [], seconds)[0]


@pytest.fixture
def client(agent: RunningAgent) -> Iterator[Client]:
    with Client(agent) as connected:
        yield connected


def create(client: Client, name: str, command: str, **options: Any) -> dict[str, Any]:
    options = {"workdir": "", "rows": 24, "cols": 80} | options
    return client.ask(type="create", session_id=name, command=command, **options)


def end(client: Client, name: str) -> None:
    """Type end of file until the session is gone."""

    def gone() -> bool:
        client.type(name, b"\x04")
        return name not in client.ask(type="list").get("sessions", [])

    eventually(gone)


def test_create_answers_ok_with_the_session_and_shows_output(client: Client) -> None:
    assert create(client, "one", "echo hello; cat") == {"type": "ok", "session_id": "one"}
    message = client.next("output")
    assert message["session_id"] == "one"
    assert base64.b64decode(message["data"]).startswith(b"hello")
    end(client, "one")


def test_the_command_has_a_shell_a_terminal_and_the_workdir(client: Client, tmp_path: Path) -> None:
    command = "tty </dev/tty; stty size; echo $TERM $0; pwd; cat"
    create(client, "env", command, workdir=str(tmp_path))
    output = client.output_until(os.fsencode(tmp_path)).decode().split()
    assert output == ["/dev/tty", "24", "80", "xterm-256color", "/bin/sh", str(tmp_path)]
    end(client, "env")


@pytest.mark.parametrize(
    ("rows", "cols", "size"),
    [(33, 101, "33 101"), (0, 101, "24 80"), (33, -1, "24 80"), (None, None, "24 80")],
)
def test_the_size_is_24_by_80_unless_both_are_positive(
    client: Client, rows: int, cols: int, size: str
) -> None:
    create(client, "size", "stty size; cat", rows=rows, cols=cols)
    assert client.output_until(b"\n").decode().strip() == size
    end(client, "size")


def test_a_second_session_of_the_same_name_is_refused(client: Client) -> None:
    create(client, "twice", "cat")
    assert create(client, "twice", "cat") == {
        "type": "error",
        "error": "session twice already exists",
    }
    end(client, "twice")


def test_a_session_that_cannot_start_is_refused(client: Client) -> None:
    answer = create(client, "nowhere", "true", workdir="/no/such/directory")
    assert answer["type"] == "error"
    assert answer["error"].startswith("failed to start pty: ")
    assert "sessions" not in client.ask(type="list")


def test_input_reaches_the_terminal_and_unknown_sessions_are_dropped(client: Client) -> None:
    create(client, "in", "cat")
    client.type("in", "größe\n".encode())
    assert client.output_until("größe\r\ngröße\r\n".encode())
    client.type("unknown", b"lost")
    client.send(type="resize", session_id="unknown", rows=1, cols=1)
    assert client.ask(type="list") == {"type": "list", "sessions": ["in"]}
    end(client, "in")


def test_resize_tells_the_process(client: Client) -> None:
    create(client, "re", "trap 'stty size' WINCH; echo ready; while sleep 0.05; do :; done")
    client.output_until(b"ready")
    client.send(type="resize", session_id="re", rows=50, cols=132)
    assert client.output_until(b"50 132")
    client.type("re", b"\x03")
    eventually(lambda: "sessions" not in client.ask(type="list"))


def test_list_has_no_field_for_no_session(client: Client) -> None:
    assert client.ask(type="list") == {"type": "list"}


def test_attach_replays_nothing_and_everybody_attached_sees_output(agent: RunningAgent) -> None:
    with Client(agent) as first, Client(agent, path="/any/path?x=1") as second:
        create(first, "shared", "echo before; cat")
        first.output_until(b"before\r\n")
        assert second.ask(type="attach", session_id="shared") == {
            "type": "ok",
            "session_id": "shared",
        }
        assert second.silent(0.1)
        first.type("shared", b"to all\n")
        assert first.output_until(b"to all\r\nto all\r\n")
        assert second.output_until(b"to all\r\nto all\r\n") == b"to all\r\nto all\r\n"
        end(first, "shared")


def test_attach_to_an_unknown_session_is_an_error(client: Client) -> None:
    answer = client.ask(type="attach", session_id="nobody")
    assert answer == {"type": "error", "error": "session not found"}


def test_detach_leaves_the_session_running(client: Client) -> None:
    create(client, "de", "cat")
    assert client.ask(type="detach") == {"type": "ok"}
    assert client.ask(type="detach") == {"type": "ok"}
    client.type("de", b"unseen\n")
    assert client.silent(0.2)
    assert client.ask(type="list")["sessions"] == ["de"]
    client.ask(type="attach", session_id="de")
    client.type("de", b"seen\n")
    assert b"unseen" not in client.output_until(b"seen\r\nseen\r\n")
    end(client, "de")


def test_attach_leaves_the_session_it_was_attached_to(client: Client) -> None:
    create(client, "left", "cat")
    create(client, "joined", "cat")
    client.type("left", b"unseen\n")
    client.type("joined", b"seen\n")
    output = client.output_until(b"seen\r\nseen\r\n")
    assert b"unseen" not in output
    client.ask(type="attach", session_id="left")
    client.type("left", b"now\n")
    assert client.output_until(b"now\r\nnow\r\n")
    end(client, "joined")
    end(client, "left")


def test_a_closed_connection_only_detaches(agent: RunningAgent) -> None:
    with Client(agent) as first:
        create(first, "kept", "cat")
    with Client(agent) as second:
        assert second.ask(type="list")["sessions"] == ["kept"]
        second.ask(type="attach", session_id="kept")
        second.type("kept", b"still here\n")
        assert second.output_until(b"still here\r\nstill here\r\n")
        end(second, "kept")


def test_the_end_of_a_process_removes_its_session_without_a_message(client: Client) -> None:
    create(client, "short", "echo bye")
    assert client.output_until(b"bye")
    eventually(lambda: "sessions" not in client.ask(type="list"))
    assert client.silent(0.1)


@pytest.mark.parametrize(
    "text",
    [
        "no json",
        "[]",
        "3",
        '{"type": "dance"}',
        '{"type": 5}',
        '{"type": "create", "session_id": 5}',
        '{"type": "input", "session_id": "x", "data": 7}',
        '{"type": "resize", "session_id": "x", "rows": "many"}',
        "{}",
    ],
)
def test_what_is_no_message_is_ignored(client: Client, agent: RunningAgent, text: str) -> None:
    client.send_text(text)
    assert client.ask(type="list") == {"type": "list"}
    assert "a terminal's message was ignored" in agent.log()


def test_bad_base64_is_ignored(client: Client) -> None:
    create(client, "b64", "cat")
    client.send(type="input", session_id="b64", data="?!")
    client.type("b64", b"good\n")
    assert client.output_until(b"good\r\ngood\r\n") == b"good\r\ngood\r\n"
    end(client, "b64")


def test_unknown_fields_and_nulls_are_ignored(client: Client) -> None:
    answer = create(client, "more", "cat", workdir=None, rows=None, colour="red")
    assert answer == {"type": "ok", "session_id": "more"}
    end(client, "more")


def test_fragments_pings_and_the_closing_handshake(client: Client) -> None:
    websocket = client.websocket
    client.sock.sendall(websocket.send(TextMessage('{"type": ', message_finished=False)))
    client.sock.sendall(websocket.send(Ping(b"there?")))
    client.sock.sendall(websocket.send(TextMessage('"list"}')))
    assert client.next("list") == {"type": "list"}
    assert [e.payload for e in client.events if isinstance(e, Pong)] == [b"there?"]
    client.sock.sendall(websocket.send(CloseConnection(1000)))
    while not any(isinstance(event, CloseConnection) for event in client.events):
        client._read()
    assert client.sock.recv(1) == b""


def test_a_frame_that_breaks_the_protocol_ends_the_connection(client: Client) -> None:
    client.sock.sendall(b"\x81\x05hello")  # a client's frames must be masked
    while not any(isinstance(event, CloseConnection) for event in client.events):
        client._read()
    assert client.events[-1].code == 1002


def test_extras_only_when_asked_for(client: Client) -> None:
    answer = create(client, "extra", "echo before; read x; exit 7", notify_exit=True)
    assert answer == {"type": "ok", "session_id": "extra"}
    client.output_until(b"before\r\n")
    client.ask(type="attach", session_id="extra", scrollback=True, notify_exit=True)
    assert client.output_until(b"before\r\n") == b"before\r\n"
    client.type("extra", b"\n")
    assert client.next("exit") == {"type": "exit", "session_id": "extra", "exit_code": 7}


def test_the_scrollback_keeps_the_end(client: Client) -> None:
    create(client, "scroll", "seq 100000; echo end; cat")
    client.output_until(b"end\r\n")
    client.ask(type="attach", session_id="scroll", scrollback=True)
    shown = client.output_until(b"end\r\n")
    assert len(shown) == 256 * 1024
    assert shown.endswith(b"99999\r\n100000\r\nend\r\n")
    end(client, "scroll")


def test_megabytes_of_output_arrive_in_order(client: Client) -> None:
    create(client, "big", "seq 300000; echo end; cat")
    output = client.output_until(b"end\r\n")
    assert output == b"".join(b"%d\r\n" % n for n in range(1, 300001)) + b"end\r\n"
    end(client, "big")


def test_input_that_is_not_read_blocks_neither_output_nor_others(agent: RunningAgent) -> None:
    """The process ignores its input while it writes more than fits anywhere."""
    with Client(agent) as client, Client(agent) as other:
        create(client, "deaf", "stty raw -echo; echo go; seq 200000; echo end; exec sleep 300")
        client.output_until(b"go\n")
        for _ in range(14):  # more than the agent takes, and less than the sockets hold too
            client.type("deaf", bytes(100_000).replace(b"\0", b"x"))
        assert client.output_until(b"end\n")
        assert other.ask(type="list")["sessions"] == ["deaf"]
        for pid in [p for p, state in agent.children().items() if state != "Z"]:
            os.killpg(pid, signal.SIGKILL)
        eventually(lambda: "sessions" not in other.ask(type="list"))


def test_a_client_that_does_not_read_is_disconnected_and_the_others_go_on(
    agent: RunningAgent,
) -> None:
    with Client(agent) as stuck, Client(agent) as good:
        create(good, "flood", "echo go; read x; seq 600000; echo end; cat")
        good.output_until(b"go\r\n")
        stuck.ask(type="attach", session_id="flood")
        stuck.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        good.type("flood", b"\n")
        assert good.output_until(b"\r\nend\r\n")
        end(good, "flood")
    assert "took nothing" in agent.log()


def test_the_token_is_asked_for_on_the_upgrade(tmp_path: Path) -> None:
    with running_agent(tmp_path, token="secret") as agent:
        for token in (None, "wrong", "secre"):
            with Client(agent, token=token) as client:
                assert isinstance(client.events[0], RejectConnection)
                assert client.events[0].status_code == 401
        with Client(agent, token="secret") as client:
            assert isinstance(client.events[0], AcceptConnection)
            assert client.ask(type="list") == {"type": "list"}
