# ruff: noqa: ARG002
"""What the emulator's proxy adds to a request, beside a direct connection.

    python benchmarks/proxy.py [ROUNDS]

A bare server, the proxy and the clients are processes of their own, all on loopback. Latency
is measured by turns, direct and through the front, on one kept-alive connection each.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
import statistics
import sys
import threading
import time
from collections.abc import Iterable
from multiprocessing.connection import Connection

from pytest_flymachines.emulator.config import MachineConfig, Port, Service
from pytest_flymachines.emulator.proxy import AppRecord, MachineRecord, StartRefused, start_proxy

TARGET_MS = 0.5
BODY = b'{"exit_code":0,"exit_signal":0,"stdout":"hello\\n","stderr":""}'
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
COMMAND = b'{"command":["/bin/sh","-c","echo hello"],"timeout":30}'
REQUEST = (
    b"POST /v1/apps/app/machines/d5683210c7968e/exec HTTP/1.1\r\nHost: app.fly.dev\r\n"
    b"User-Agent: benchmark\r\nAccept: */*\r\nAccept-Encoding: gzip, deflate\r\n"
    b"Authorization: Bearer 0123456789abcdef\r\nContent-Type: application/json\r\n"
    b"fly-force-instance-id: d5683210c7968e\r\nContent-Length: %d\r\n\r\n%s"
) % (len(COMMAND), COMMAND)
LARGE = 256 * 1024 * 1024
DOWNLOAD = b"GET /large HTTP/1.1\r\nHost: app.fly.dev\r\nConnection: close\r\n\r\n"


class Answers(asyncio.Protocol):
    """Answers every request with the same, and `/large` with a large body."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.left = 0

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"GET /large"):
            self.left = LARGE
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE)
            self.more()
        elif data.endswith(b"}"):
            self.transport.write(ANSWER % (len(BODY), BODY))

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.more()

    def more(self) -> None:
        self.paused = False
        while self.left > 0 and not self.paused:
            self.transport.write(bytes(min(self.left, 1 << 18)))
            self.left -= 1 << 18


def serve(pipe: Connection) -> None:
    """Be the program in the machine."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Answers, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


class OneMachine:
    """A directory with one app and one machine, whose program is the bare server."""

    def __init__(self, port: int) -> None:
        self.port = port
        service = Service(
            protocol="tcp", internal_port=7422, ports=[Port(port=443, handlers=["tls", "http"])]
        )
        self.record = MachineRecord(
            id="d5683210c7968e",
            app="app",
            region="ord",
            state="started",
            config=MachineConfig(services=[service]),
        )

    def app(self, name: str) -> AppRecord | None:
        return AppRecord(name=name) if name == "app" else None

    def machines(self, app: str) -> Iterable[MachineRecord]:
        return (self.record,)

    def machine(self, machine_id: str) -> MachineRecord | None:
        return self.record if machine_id == self.record.id else None

    async def connect(self, machine_id: str, port: int) -> socket.socket:
        connection = socket.socket()
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", self.port))
        return connection

    async def start(self, machine_id: str) -> None:
        raise StartRefused("it runs")

    def log(self, app: str, machine_id: str, text: str) -> None:
        print(text)


def proxy(pipe: Connection, port: int) -> None:
    """Be the proxy."""

    async def run() -> None:
        running = await start_proxy(OneMachine(port))
        pipe.send(int(running.url.rpartition(":")[2]))
        await asyncio.Event().wait()

    asyncio.run(run())


def connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def exchange(connection: socket.socket) -> None:
    connection.sendall(REQUEST)
    answer = b""
    while not answer.endswith(BODY):
        answer += connection.recv(65536)


def latencies_ms(ports: list[int], rounds: int) -> list[list[float]]:
    """Per port, the time of each round trip, taken by turns."""
    connections = [connect(port) for port in ports]
    times: list[list[float]] = [[] for _ in ports]
    for _ in range(rounds):
        for connection, taken in zip(connections, times, strict=True):
            start = time.perf_counter()
            exchange(connection)
            taken.append((time.perf_counter() - start) * 1e3)
    for connection in connections:
        connection.close()
    return times


def rate(port: int, rounds: int, clients: int = 16) -> float:
    """Requests per second of some clients at once."""

    def work() -> None:
        connection = connect(port)
        for _ in range(rounds // clients):
            exchange(connection)
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return rounds // clients * clients / (time.perf_counter() - start)


def megabytes_per_s(port: int) -> float:
    connection = connect(port)
    connection.sendall(DOWNLOAD)
    start, size, buffer = time.perf_counter(), 0, bytearray(1 << 18)
    while size < LARGE and (got := connection.recv_into(buffer)):
        size += got
    connection.close()
    assert size >= LARGE, "the download broke off"
    return size / 1e6 / (time.perf_counter() - start)


def started(target: object, *args: object) -> tuple[multiprocessing.Process, int]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=target, args=(theirs, *args), daemon=True)  # type: ignore[arg-type]  # one of two functions
    process.start()
    port: int = ours.recv()
    return process, port


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    server, direct = started(serve)
    middle, front = started(proxy, direct)
    latencies_ms([direct, front], 200)
    plain, through = latencies_ms([direct, front], rounds)
    print(f"{rounds} round trips       direct   through the front")
    print(
        f"median latency    {statistics.median(plain):8.3f} ms {statistics.median(through):8.3f} ms"
    )
    for name, share in (("95 % within", 0.95), ("99 % within", 0.99)):
        one, other = (sorted(times)[int(share * rounds)] for times in (plain, through))
        print(f"{name}       {one:8.3f} ms {other:8.3f} ms")
    added = statistics.median(through) - statistics.median(plain)
    print(f"added, median     {added:20.3f} ms (target {TARGET_MS} ms)")
    print(f"16 clients        {rate(direct, rounds):8.0f} /s {rate(front, rounds):8.0f} /s")
    print(
        f"download          {megabytes_per_s(direct):8.0f} MB/s {megabytes_per_s(front):6.0f} MB/s"
    )
    for process in (middle, server):
        process.kill()


if __name__ == "__main__":
    main()
