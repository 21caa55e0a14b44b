"""What goes wrong: clients that die, connections that drop, disks that are full, crowds."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import chain
from pathlib import Path

import pytest

from pytest_flymachines._clock import ReplayClock
from pytest_flymachines._http import (
    PoolTransport,
)
from pytest_flymachines.agent.channel import AgentChannel
from pytest_flymachines.agent.server.pax import members
from pytest_flymachines.errors import ApiError, SandboxFileError
from pytest_flymachines.sandbox.channel import Command
from tests.agent.running import PREFIX, TOKEN, RunningAgent, eventually, running_agent
from tests.agent.test_processes import alive, collect, run, shell


def send(agent: RunningAgent, path: str, body: bytes, length: int | None = None) -> socket.socket:
    """Send a request, and leave the connection open."""
    sock = agent.connect()
    head = (
        f"POST {PREFIX}{path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\n"
        f"content-length: {len(body) if length is None else length}\r\n\r\n"
    )
    sock.sendall(head.encode() + body)
    return sock


def abort(sock: socket.socket) -> None:
    """Close with a reset, as a client that is killed on another host may look."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@pytest.mark.parametrize("end", [abort, socket.socket.close], ids=["reset", "closed"])
def test_a_command_whose_caller_is_gone_is_killed_if_nobody_knows_it(
    agent: RunningAgent, end: object, tmp_path: Path
) -> None:
    script = f"echo $$ > {tmp_path}/pid; exec sleep 300"
    body = {"command": ["sh", "-c", script], "wait_s": 200, "forget": True}
    sock = send(agent, "/exec", json.dumps(body).encode())
    eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    pid = int((tmp_path / "pid").read_text())
    assert callable(end)
    end(sock)
    eventually(lambda: not alive(pid), timeout_s=30)


def test_a_command_of_the_machines_api_goes_on_when_its_caller_is_gone(
    agent: RunningAgent, tmp_path: Path
) -> None:
    script = f"echo $$ > {tmp_path}/pid; sleep 3; echo done > {tmp_path}/done"
    sock = send(agent, "/exec", json.dumps({"command": ["sh", "-c", script]}).encode())
    eventually((tmp_path / "pid").exists)
    sock.close()
    eventually((tmp_path / "done").exists)


def test_an_upload_that_breaks_off_leaves_nothing(agent: RunningAgent) -> None:
    (agent.base / "kept").write_text("old")
    for path in ("files?path=kept", "trees?path=made"):
        sock = agent.connect()
        head = (
            f"PUT {PREFIX}/agent/{path} HTTP/1.1\r\nhost: x\r\n"
            f"authorization: Bearer {TOKEN}\r\ncontent-length: 100000\r\n\r\n"
        )
        sock.sendall(head.encode() + bytes(5000))
        eventually(lambda: list(agent.base.glob(".flymachines-*")))
        abort(sock)
        eventually(lambda: not list(agent.base.glob(".flymachines-*")))
    assert (agent.base / "kept").read_text() == "old"
    assert not (agent.base / "made").exists()


def test_threads_and_descriptors_come_back(agent: RunningAgent, channel: AgentChannel) -> None:
    run(channel, "true")
    descriptors, threads = agent.descriptors(), agent.threads()
    socks = [agent.connect() for _ in range(50)]
    for sock in socks[:25]:
        sock.sendall(b"GET / HTTP/1.1\r\n")
    eventually(lambda: agent.threads() >= threads + 50)
    for sock in socks:
        abort(sock)
    for _ in range(20):
        shell(channel, "echo $$ | cat", pty=(24, 80))
        shell(channel, "echo $$ | cat", stdin=b"x")
        run(channel, "nope")
        with pytest.raises(SandboxFileError):
            run(channel, "true", cwd=b"nowhere")
        started = channel.start(Command(argv=[b"cat"], keep_stdin=True), wait_s=0, forget=True)
        channel.forget(started.id)
    eventually(lambda: agent.threads() <= threads)
    eventually(lambda: agent.descriptors() <= descriptors)
    eventually(lambda: not agent.children())


def test_a_crowd_of_threads_gets_right_answers(agent: RunningAgent, channel: AgentChannel) -> None:
    """16 threads with 200 commands each, every one with its own output."""

    def work(worker: int) -> int:
        good = 0
        for number in range(200):
            text = f"{worker}-{number}".encode()
            good += run(channel, "echo", text).stdout == text + b"\n"
        return good

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(work, range(16))) == 16 * 200
    eventually(lambda: not agent.children())


def test_many_processes_at_once(agent: RunningAgent, channel: AgentChannel) -> None:
    command = Command(argv=[b"sh", b"-c", b"read x; echo $x"], keep_stdin=True)
    started = [channel.start(command, wait_s=0, forget=False) for _ in range(100)]
    for number, update in enumerate(started):
        channel.write_stdin(update.id, b"%d\n" % number, eof=True)
    for number, update in enumerate(started):
        out, _, last = collect(channel, update)
        assert (out, last.exit_code) == (b"%d\n" % number, 0)
        channel.forget(update.id)


def test_a_client_that_reads_slowly_holds_up_nobody(
    agent: RunningAgent, channel: AgentChannel
) -> None:
    (agent.base / "large").write_bytes(bytes(30 << 20))
    with send(agent, "/agent/files/read", b'{"path": "large"}') as slow:
        assert slow.recv(10) == b"HTTP/1.1 2"
        assert run(channel, "echo", "quick").stdout == b"quick\n"
        received = 10
        while piece := slow.recv(1 << 20):
            received += len(piece)
            if received > 30 << 20:
                break
    assert received > 30 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    if os.getuid() != 0:
        pytest.skip("only root can mount one")
    directory = tmp_path / "small"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", directory], check=True)
    yield directory
    subprocess.run(["umount", "-l", directory], check=True)


def test_a_full_disk_truncates_output_and_hangs_nobody(small_disk: Path, tmp_path: Path) -> None:
    with running_agent(tmp_path, state=small_disk) as agent, closing(PoolTransport()) as transport:
        channel = AgentChannel(
            transport,
            base_url=agent.url,
            app="app",
            machine_id="m1",
            token=TOKEN,
            clock=ReplayClock(),
        )
        script = b"yes | head -c 20000000; echo end >&2; exit 5"
        command = Command(argv=[b"sh", b"-c", script])
        out, err, last = collect(channel, channel.start(command, wait_s=0, forget=False))
        assert last.exit_code == 5
        assert last.stdout_truncated
        assert not last.stderr_truncated
        assert err == b"end\n"
        assert 3_000_000 < len(out) < 5_000_000
        assert out == b"y\n" * (len(out) // 2)
        channel.forget(last.id)
        (agent.base / "f").write_bytes(bytes(6 << 20))
        with pytest.raises(ApiError, match="No space left"):
            channel.save_checkpoint("too-large")
        assert channel.checkpoints() == []
        for _ in range(10):
            run(channel, "true")
        again = collect(channel, channel.start(command, wait_s=0, forget=False))[0]
        assert len(again) > 3_000_000  # the room was given back


def test_a_full_disk_fails_a_write_and_keeps_the_old_file(
    small_disk: Path, channel: AgentChannel
) -> None:
    (small_disk / "file").write_text("old")
    there = channel.with_base(os.fsencode(small_disk))
    with pytest.raises(SandboxFileError, match="No space left"):
        there.write(b"file", [os.urandom(6 << 20)], mode=None, parents=False)
    assert (small_disk / "file").read_text() == "old"
    assert [p.name for p in small_disk.iterdir()] == ["file"]


def test_running_out_of_descriptors_is_an_error_and_passes(tmp_path: Path) -> None:
    with running_agent(tmp_path) as agent:
        subprocess.run(["prlimit", f"--pid={agent.process.pid}", "--nofile=40:40"], check=True)
        with agent.http() as client:
            assert client.post("/exec", json={"command": ["true"]}).status_code == 200
            socks = [agent.connect() for _ in range(60)]
            eventually(lambda: "cannot accept a connection" in agent.log())
            answer = client.post("/exec", json={"command": ["true"]})
            assert (answer.status_code, answer.json()["errno"]) == (409, 24)
            for sock in socks:
                sock.close()
            eventually(lambda: client.post("/exec", json={"command": ["true"]}).status_code == 200)


def test_the_end_of_the_agent_ends_its_processes(tmp_path: Path) -> None:
    with running_agent(tmp_path) as agent, agent.http() as client:
        body = {"command": ["sh", "-c", "sleep 300 & exec sleep 300"], "wait_s": 0}
        pid = client.post("/exec", json=body).json()["pid"]
        agent.process.send_signal(signal.SIGINT)
        assert agent.process.wait(20) == 0
        eventually(lambda: not alive(pid))


@pytest.mark.parametrize("what", [b"tree", b"tree/f"])
def test_a_file_that_shrinks_under_a_download_is_told(
    agent: RunningAgent, channel: AgentChannel, what: bytes
) -> None:
    file = agent.base / "tree" / "f"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(bytes(60 << 20))
    pieces = channel.get_tree(what)
    next(pieces)
    os.truncate(file, 100)
    with pytest.raises(SandboxFileError, match=r"became shorter while it was read.*tree/f"):
        list(pieces)
    assert channel.health()["pid"] == agent.process.pid


def test_a_download_takes_of_a_file_that_grows_what_was_there(
    agent: RunningAgent, channel: AgentChannel
) -> None:
    (agent.base / "grows").write_bytes(bytes(8 << 20))
    pieces = channel.get_tree(b"grows")
    first = next(pieces)
    with (agent.base / "grows").open("ab") as file:
        file.write(b"more")
    found = [(m, b"".join(content)) for m, content in members(chain([first], pieces))]
    assert [(m.name, m.size, content) for m, content in found] == [
        (b"grows", 8 << 20, bytes(8 << 20))
    ]


def test_threads_may_share_a_channel_that_polls(agent: RunningAgent, channel: AgentChannel) -> None:
    """A long poll in one thread does not hold up another, and hears what the other did."""
    started = channel.start(Command(argv=[b"cat"], keep_stdin=True), wait_s=0, forget=False)
    heard: list[bytes] = []

    def listen() -> None:
        heard.append(channel.poll(started.id, stdout=0, stderr=0, wait_s=30).stdout)

    thread = threading.Thread(target=listen)
    thread.start()
    time.sleep(0.1)
    channel.write_stdin(started.id, b"news", eof=True)
    thread.join()
    assert heard == [b"news"]
    channel.forget(started.id)
