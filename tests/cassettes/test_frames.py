"""Terminals over WebSockets: the frames of a connection in a test's cassette."""

from __future__ import annotations

import base64
import json
import threading
from pathlib import Path

import pytest

from pytest_flymachines.cassettes import CassetteKey, FrameSocket, Recorder, Scrubber
from pytest_flymachines.errors import CassetteMiss

TEST = CassetteKey.test("test_a.py::test_x")


class Shell:
    """A server of cook-agent's protocol with one session, which echoes its input."""

    def __init__(self) -> None:
        self._frames: list[str | None] = []
        self.changed = threading.Condition()

    def send(self, text: str) -> None:
        ask = json.loads(text)
        with self.changed:
            if ask["type"] == "create":
                self._frames += [self._output(b"$ "), json.dumps({"type": "ok", "session_id": "s"})]
            elif ask["type"] == "input":
                data = base64.b64decode(ask["data"])
                self._frames += [self._output(data), self._output(b"done\r\n")]
            elif ask["type"] == "bye":
                self._frames.append(None)
            self.changed.notify_all()

    @staticmethod
    def _output(data: bytes) -> str:
        coded = base64.b64encode(data).decode()
        return json.dumps({"type": "output", "session_id": "s", "data": coded})

    def receive(self, timeout_s: float) -> str | None:
        with self.changed:
            if not self.changed.wait_for(lambda: bool(self._frames), timeout_s):
                raise TimeoutError
            return self._frames.pop(0)

    def close(self) -> None:
        """Nothing is open."""


def frame(kind: str, **fields: str) -> str:
    return json.dumps({"type": kind, **fields})


def typed(text: str) -> str:
    return frame("input", session_id="s", data=base64.b64encode(text.encode()).decode())


def connect(recorder: Recorder) -> FrameSocket:
    return recorder.frames("/", Shell)


def recorders(tmp_path: Path) -> tuple[Recorder, Recorder]:
    scrubber = Scrubber(environ={"FLY_API_TOKEN": "pl4nted-s3cret"})
    return (
        Recorder(tmp_path, mode="all", scrubber=scrubber),
        Recorder(tmp_path, mode="replay", scrubber=Scrubber(environ={})),
    )


def text_of(got: list[str | None]) -> bytes:
    frames = [json.loads(text) for text in got if text]
    return b"".join(base64.b64decode(f["data"]) for f in frames if f["type"] == "output")


def session(recorder: Recorder, *, command: str = "ls\n") -> list[str | None]:
    """Make a session, type, and see the connection closed by the server."""
    got: list[str | None] = []
    with recorder.use(TEST):
        socket = connect(recorder)
        socket.send(frame("create", session_id="s", command="sh"))
        got += [socket.receive(1), socket.receive(1)]
        with pytest.raises(TimeoutError):
            socket.receive(0.05)
        socket.send(typed(command))
        got += [socket.receive(1), socket.receive(1)]
        socket.send(frame("bye"))
        got.append(socket.receive(1))
        socket.close()
    return got


def test_frames_replay_in_order_with_their_silences_and_the_end(tmp_path: Path) -> None:
    recorder, replayer = recorders(tmp_path)
    live = session(recorder)
    recorder.finish(TEST, passed=True)
    again = session(replayer)
    assert text_of(again) == text_of(live) == b"$ ls\ndone\r\n"
    assert again[-1] is live[-1] is None
    assert replayer.clock.monotonic() >= 0.05
    text = (tmp_path / TEST.path).read_text()
    assert text.count("- request:") == 1, "one interaction for the whole connection"
    assert '"command": "sh"' in text


def test_a_frame_that_was_not_recorded_is_a_miss_with_a_diff(tmp_path: Path) -> None:
    recorder, replayer = recorders(tmp_path)
    session(recorder)
    recorder.finish(TEST, passed=True)
    with pytest.raises(CassetteMiss) as missed:
        session(replayer, command="rm\n")
    assert '-  "data": "ls\\n"' in str(missed.value)
    assert '+  "data": "rm\\n"' in str(missed.value)
    assert "pytest test_a.py::test_x --fly-record=all" in str(missed.value)


def test_more_frames_than_were_recorded_are_a_miss(tmp_path: Path) -> None:
    recorder, replayer = recorders(tmp_path)
    with recorder.use(TEST):
        connect(recorder).send(frame("list"))
    recorder.finish(TEST, passed=True)
    with replayer.use(TEST):
        socket = connect(replayer)
        socket.send(frame("list"))
        with pytest.raises(CassetteMiss, match="All recorded frames were sent"):
            socket.send(frame("list"))


def test_a_listening_thread_gets_each_frame_once_it_was_asked_for(tmp_path: Path) -> None:
    def go(recorder: Recorder) -> bytes:
        got: list[str | None] = []
        arrived = threading.Condition()
        over = threading.Event()

        def listen(socket: FrameSocket) -> None:
            while not over.is_set():
                try:
                    text = socket.receive(0.2)
                except TimeoutError:
                    continue
                with arrived:
                    got.append(text)
                    arrived.notify_all()

        with recorder.use(TEST):
            socket = connect(recorder)
            thread = threading.Thread(target=listen, args=(socket,))
            thread.start()
            try:
                socket.send(frame("create", session_id="s", command="sh"))
                with arrived:
                    assert arrived.wait_for(lambda: len(got) == 2, 10)
                socket.send(typed("a\n"))
                with arrived:
                    assert arrived.wait_for(lambda: len(got) == 4, 10)
            finally:
                over.set()
                thread.join()
        return text_of(got)

    recorder, replayer = recorders(tmp_path)
    live = go(recorder)
    recorder.finish(TEST, passed=True)
    assert go(replayer) == live == b"$ a\ndone\r\n"


def test_a_connection_that_is_still_open_at_the_end_is_kept(tmp_path: Path) -> None:
    recorder, replayer = recorders(tmp_path)
    with recorder.use(TEST):
        socket = connect(recorder)
        socket.send(frame("create"))
        live = socket.receive(1)
    recorder.finish(TEST, passed=True)
    with replayer.use(TEST):
        socket = connect(replayer)
        socket.send(frame("create"))
        assert json.loads(socket.receive(1) or "") == json.loads(live or "")


def test_a_secret_typed_into_a_terminal_is_not_kept(tmp_path: Path) -> None:
    recorder, _ = recorders(tmp_path)
    session(recorder, command="login pl4nted-s3cret\n")
    recorder.finish(TEST, passed=True)
    text = (tmp_path / TEST.path).read_text()
    assert not Scrubber(environ={"FLY_API_TOKEN": "pl4nted-s3cret"}).find(text.encode())
    for other in ("pl4nted-s3cret", "another-secret"):  # and neither is known where it is replayed
        session(recorders(tmp_path)[1], command=f"login {other}\n")
    with pytest.raises(CassetteMiss):
        session(recorders(tmp_path)[1], command="logout another\n")


def test_without_recording_the_socket_is_the_servers_own(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, mode="off", scrubber=Scrubber(environ={}))
    with recorder.use(TEST):
        assert isinstance(connect(recorder), Shell)
