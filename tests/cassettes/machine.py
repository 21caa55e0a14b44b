"""A small server that answers like the Machines API and an agent: real commands, real files.

Run as a program it prints its port and serves until its stdin is closed.
"""

from __future__ import annotations

import http.server
import itertools
import json
import os
import secrets
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit


class Server(http.server.ThreadingHTTPServer):
    """Attributes:
    directory: Where commands run and files lie.
    seen: Every request as `METHOD path`, in order.
    """

    daemon_threads = True

    def __init__(self, directory: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.directory = directory
        self.seen: list[str] = []
        self.count = itertools.count(1)
        self.processes: dict[str, tuple[subprocess.Popen[bytes], bytearray]] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is no error here."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: Server

    def log_message(self, *args: object) -> None:
        """Be silent."""

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.server.seen.append(f"{self.command} {parts.path}")
        body = self._body()
        where = parts.path.strip("/").split("/")
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        name = f"{self.command.lower()}_{self._verb(where)}"
        getattr(self, name, self.missing)(where, query, body)

    do_POST = do_GET  # noqa: N815 - named by http.server
    do_PUT = do_GET  # noqa: N815

    @staticmethod
    def _verb(where: list[str]) -> str:
        verbs = [part for part in where[3:] if part.isalpha()]
        return "_".join(verbs) or where[-1]

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("transfer-encoding", ""):
            return self.rfile.read(int(self.headers.get("content-length") or 0))
        pieces = []
        while size := int(self.rfile.readline(), 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def reply(self, value: Any, status: int = 200, kind: str = "application/json") -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.send_header("fly-request-id", secrets.token_hex(8))
        self.end_headers()
        self.wfile.write(data)

    def missing(self, where: list[str], query: dict[str, str], body: bytes) -> None:
        self.reply({"error": f"nothing at {self.path}"}, 404)

    def post_machines(self, where: list[str], query: dict[str, str], body: bytes) -> None:
        config = json.loads(body)["config"]
        self.reply({"id": secrets.token_hex(7), "state": "created", "config": config})

    def post_machines_exec(self, where: list[str], query: dict[str, str], body: bytes) -> None:
        ask = json.loads(body)
        done = subprocess.run(
            ask["command"],
            cwd=self.server.directory,
            env={**os.environ, **ask.get("env", {}), "COUNT": str(next(self.server.count))},
            capture_output=True,
            check=False,
        )
        self.reply(
            {
                "exit_code": done.returncode,
                "stdout": done.stdout.decode("utf-8", "replace"),
                "stderr": done.stderr.decode("utf-8", "replace"),
            }
        )

    def post_machines_agent_processes(
        self, where: list[str], query: dict[str, str], body: bytes
    ) -> None:
        process = subprocess.Popen(
            json.loads(body)["command"], cwd=self.server.directory, stdout=subprocess.PIPE
        )
        output = bytearray()

        def drain() -> None:
            assert process.stdout is not None
            with process:
                while piece := os.read(process.stdout.fileno(), 4096):
                    output.extend(piece)

        threading.Thread(target=drain, daemon=True).start()
        name = f"p{len(self.server.processes) + 1}-{secrets.token_hex(2)}"
        self.server.processes[name] = process, output
        self.reply({"id": name, "running": True, "stdout": ""})

    def post_machines_agent_processes_poll(
        self, where: list[str], query: dict[str, str], body: bytes
    ) -> None:
        ask = json.loads(body)
        process, output = self.server.processes[where[-2]]
        deadline = time.monotonic() + ask["wait_s"]
        while len(output) <= ask["stdout"] and process.returncode is None:
            if time.monotonic() > deadline:
                break
            time.sleep(0.005)
        text = bytes(output[ask["stdout"] :]).decode()
        running = process.returncode is None
        self.reply({"id": where[-2], "running": running, "stdout": text})

    def put_machines_agent_file(self, where: list[str], query: dict[str, str], body: bytes) -> None:
        (self.server.directory / query["path"]).write_bytes(body)
        self.reply({"size": len(body)})

    def get_machines_agent_file(self, where: list[str], query: dict[str, str], body: bytes) -> None:
        path = self.server.directory / query["path"]
        if path.exists():
            self.reply(path.read_bytes(), kind="application/octet-stream")
        else:
            self.reply({"error": "no such file"}, 404)


def main() -> None:
    server = Server(Path(sys.argv[1]))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()
    server.shutdown()


if __name__ == "__main__":
    main()
