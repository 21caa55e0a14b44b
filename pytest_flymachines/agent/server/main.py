"""The program: options, start, end."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import threading

from .listener import STACK_BYTES, Acceptor, open_listener
from .log import log

# A thread that computes gives way to one that has a request to answer sooner than by default.
SWITCH_INTERVAL_S = 0.001


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    options = _options()
    try:
        listeners = [open_listener(address) for address in options.listen or [":7422"]]
        token_sha256 = _token_sha256(options.token_sha256_file)
        for directory in (options.base, options.state):
            os.makedirs(directory, exist_ok=True)
    except (OSError, ValueError) as error:
        sys.exit(f"cook-agent: {error}")
    for listener in listeners:
        log(f"listening on {_address(listener)}")
    if token_sha256 is None:
        log("no --token-sha256-file: whoever reaches the port can run commands here")
    _serve(listeners, os.path.abspath(options.base), os.path.abspath(options.state), token_sha256)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="cook-agent", allow_abbrev=False)
    parser.add_argument(
        "-listen",
        "--listen",
        action="append",
        metavar="ADDRESS",
        help=":PORT, HOST:PORT or [IPV6]:PORT; may be repeated; default :7422",
    )
    parser.add_argument(
        "--token-sha256-file",
        metavar="FILE",
        help="hex SHA-256 of the bearer token that requests must carry; default: none needed",
    )
    parser.add_argument("--base", default=".", metavar="DIR", help="where relative paths start")
    parser.add_argument(
        "--state",
        default=f"/tmp/cook-agent-{os.getuid()}",  # noqa: S108
        metavar="DIR",
        help="for output of processes, workspaces and checkpoints",
    )
    return parser.parse_args()


def _token_sha256(path: str | None) -> str | None:
    if path is None:
        return None
    with open(path, encoding="ascii") as file:
        digest = file.read().strip().lower()
    if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise ValueError(f"{path}: expected a SHA-256 in hex, got {len(digest)} characters")
    return digest


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _serve(listeners: list[socket.socket], base: str, state: str, token_sha256: str | None) -> None:
    from .reactor import Reactor
    from .server import Server

    sys.setswitchinterval(SWITCH_INTERVAL_S)
    threading.stack_size(STACK_BYTES)
    reactor = Reactor()
    server = Server(reactor, os.fsencode(base), os.fsencode(state), token_sha256)
    for listener in listeners:
        Acceptor(reactor, listener, server.serve).start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: reactor.stop())
    # a shell that starts the agent with `&` has it ignored, and commands would inherit that
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    reactor.run()
    server.close()
    # threads still wait in connections; there is nothing that they could lose
    os._exit(0)
