"""CPU that one small exec costs the client, beside plain httpx and a bare socket.

    python benchmarks/client_overhead.py [ROUNDS]

The server is a raw socket loop in a process of its own, over one kept-alive loopback
connection, so what is measured is the client's side: user and system time of this process.
"""

from __future__ import annotations

import multiprocessing
import socket
import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import httpx

from pytest_flymachines.api import MachinesClient

BODY = b'{"exit_code":0,"exit_signal":0,"stdout":"hello\\n","stderr":""}'
ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json; charset=utf-8\r\n"
    b"fly-request-id: 01JJRPZ859TZM6BZ1A9RN4AZ5N-fra\r\ncontent-length: %d\r\n\r\n%s"
) % (len(BODY), BODY)
PATH = "/v1/apps/app/machines/d5683210c7968e/exec"
COMMAND = b'{"command":["/bin/sh","-c","echo hello"],"timeout":30}'
TARGET_MS = 0.25


def serve(pipe: Connection) -> None:
    """Answer every request of one connection at a time, until killed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pipe.send(listener.getsockname()[1])
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                pending = b""
                while data := connection.recv(65536):
                    pending += data
                    if pending.endswith(b"}"):  # every request here ends with its JSON body
                        pending = b""
                        connection.sendall(ANSWER)


def cpu_ms(work: Callable[[], object], rounds: int) -> float:
    """The median of nine measurements, per call."""
    measured = []
    for _ in range(200):
        work()
    for _ in range(9):
        begun = time.process_time()
        for _ in range(rounds):
            work()
        measured.append(time.process_time() - begun)
    return statistics.median(measured) / rounds * 1000


def bare(port: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """The least that Python can do."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    request = (
        f"POST {PATH} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Bearer x\r\n"
        f"content-type: application/json\r\ncontent-length: {len(COMMAND)}\r\n\r\n"
    ).encode() + COMMAND

    def call() -> None:
        connection.sendall(request)
        connection.recv(65536)

    return call, connection.close


def plain_httpx(port: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """What most clients are made of."""
    client = httpx.Client(headers={"authorization": "Bearer x"})
    url = f"http://127.0.0.1:{port}{PATH}"
    headers = {"content-type": "application/json"}
    return lambda: client.post(url, content=COMMAND, headers=headers).json(), client.close


def ours(port: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """Validation, retries, cookies, models and errors included."""
    client = MachinesClient("x", base_url=f"http://127.0.0.1:{port}", pace=False)
    command = ["/bin/sh", "-c", "echo hello"]
    return lambda: client.exec("app", "d5683210c7968e", command, timeout_s=30), client.close


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    receiver, sender = multiprocessing.Pipe(duplex=False)
    server = multiprocessing.Process(target=serve, args=(sender,), daemon=True)
    server.start()
    port = receiver.recv()
    measured = {}
    for make in (bare, plain_httpx, ours):
        call, close = make(port)
        measured[make.__name__] = cpu_ms(call, rounds)
        close()
    server.terminate()
    for name, value in measured.items():
        ratio, beside = value / measured["bare"], value / measured["plain_httpx"]
        print(f"{name:12} {value:.3f} ms  {ratio:5.2f} x bare  {beside:5.2f} x httpx.Client")
    verdict = "within" if measured["ours"] <= TARGET_MS else "OVER"
    print(f"target: {TARGET_MS} ms CPU for one exec; {verdict}")


if __name__ == "__main__":
    main()
