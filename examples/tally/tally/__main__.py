"""Count lines, words and bytes; `serve` answers the same over HTTP."""

from __future__ import annotations

import argparse
import http.server
import json
import sys
from pathlib import Path


def tally(data: bytes) -> dict[str, int]:
    """Lines, words and bytes of some text."""
    return {"lines": data.count(b"\n"), "words": len(data.split()), "bytes": len(data)}


class Handler(http.server.BaseHTTPRequestHandler):
    """POST a text, get its tally."""

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["content-length"]))
        body = json.dumps(tally(data)).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    """The command line; ends the process."""
    sys.exit(run())


def run() -> int:
    """Carry out the command; the exit code."""
    parser = argparse.ArgumentParser(prog="tally")
    commands = parser.add_subparsers(dest="command", required=True)
    count = commands.add_parser("count")
    count.add_argument("file", type=Path, nargs="+")
    serve = commands.add_parser("serve")
    serve.add_argument("--port", type=int, default=8080)
    options = parser.parse_args()
    if options.command == "serve":
        server = http.server.ThreadingHTTPServer(("0.0.0.0", options.port), Handler)
        print(f"tally: listening on {server.server_port}", flush=True)
        server.serve_forever()
    for file in options.file:
        try:
            print(f"{file}: {json.dumps(tally(file.read_bytes()))}")
        except OSError as error:
            print(f"tally: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    main()
