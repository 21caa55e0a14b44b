"""Processes over HTTP: start and wait, poll, feed, signal, forget."""

from __future__ import annotations

import errno
import signal
import time
from collections.abc import Callable
from typing import Any

from .messages import Request, Response
from .paths import Paths
from .processes import (
    CLIENT_CHECK_S,
    KnownProcess,
    Processes,
    report,
    wait_for_end,
    wait_for_output,
)
from .spawn import Program
from .users import environment, find_user
from .wire import MAX_WAIT_S, BadRequest, field, seconds, unpack

# With one of these in it a request is for us; without, it is the Machines API's exec.
OUR_FIELDS = {"cwd", "env", "forget", "keep_stdin", "pty", "user", "wait_s"}
STDIN_WAIT_S = 25.0


class ExecApi:
    """The handlers; each takes a request and gives its answer."""

    def __init__(self, processes: Processes, paths: Paths) -> None:
        self._processes = processes
        self._paths = paths

    def start(self, request: Request) -> Response:
        """`POST .../exec`: as the Machines API's, or, with any of our fields, start and wait."""
        body = request.json()
        if not OUR_FIELDS & body.keys():
            return self._exec_as_fly(request, body)
        process = self._start(body, self._program(body))
        wait_s = min(seconds(body, "wait_s", 0.0) or 0.0, MAX_WAIT_S)
        forget = field(body, "forget", bool, False)
        if wait_s:
            wait_for_end(process, wait_s, request.gone)
            if forget and not process.ended and request.gone():
                # nobody knows its name, so nobody could end it
                self._processes.forget(process)
        return self._report(process, (0, 0), forget)

    def _start(self, body: dict[str, Any], program: Program) -> KnownProcess:
        stdin = unpack(body.get("stdin") or "", "stdin")
        # 0 is how Go's clients leave it out
        process = self._processes.start(program, seconds(body, "timeout", None) or None)
        if program.stdin or program.pty:
            with process.changed:
                if not process.stdin.broken:
                    process.stdin.feed(stdin, eof=not _keeps_stdin(body))
        return process

    def _program(self, body: dict[str, Any]) -> Program:
        user_name = field(body, "user", str, None)
        user = find_user(user_name) if user_name else None
        env = {
            name.encode(): unpack(value, f"env {name}")
            for name, value in field(body, "env", dict, {}).items()
        }
        pty = _size(field(body, "pty", list, None))
        if pty:
            env.setdefault(b"TERM", b"xterm-256color")
        for key, value in env.items():
            if not key or b"=" in key or b"\0" in key + value:
                raise BadRequest(f"env {key!r}: expected a name without =, and no NUL")
        cwd = unpack(body.get("cwd") or "", "cwd")
        return Program(
            argv=_argv(body),
            cwd=self._paths.resolve(cwd),
            env=environment(user, env),
            user=user,
            pty=pty,
            stdin=bool(body.get("stdin")) or _keeps_stdin(body),
        )

    def _exec_as_fly(self, request: Request, body: dict[str, Any]) -> Response:
        program = Program(_argv(body), b"/", environment(None, {}), stdin=bool(body.get("stdin")))
        process = self._start(body, program)
        wait_for_end(process, None, request.gone)
        if not process.ended:  # nobody hears this; as with the API, the process goes on
            return Response({"error": "the client has gone"}, 408)
        with process.changed:
            out = process.stdout.read_all()
            err = process.stderr.read_all()
        self._processes.forget(process)
        if process.timed_out:
            return Response({"error": f"deadline_exceeded: killed after {body['timeout']} s"}, 408)
        return Response(
            {
                "exit_code": None if process.exit_signal else process.exit_code,
                "exit_signal": process.exit_signal,
                "stdout": out.decode("utf-8", "replace"),
                "stderr": err.decode("utf-8", "replace"),
            }
        )

    def _report(self, process: KnownProcess, offsets: tuple[int, int], forget: bool) -> Response:
        answer, complete = report(process, offsets)
        if forget and complete:
            self._processes.forget(process)
        return Response(answer)

    def poll(self, request: Request, name: str) -> Response:
        """`POST .../agent/processes/{id}/poll`: output from offsets, waiting for some."""
        process = self._processes.get(name)
        body = request.json()
        offsets = _offset(body, "stdout"), _offset(body, "stderr")
        wait_s = min(seconds(body, "wait_s", 0.0) or 0.0, MAX_WAIT_S)
        if wait_s:
            wait_for_output(process, offsets, wait_s, request.gone)
        return self._report(process, offsets, field(body, "forget", bool, False))

    def stdin(self, request: Request, name: str) -> Response:
        """`POST .../agent/processes/{id}/stdin?eof=1`: the body goes to the process.

        The answer says how many bytes it took; the rest is to be sent again.
        """
        process = self._processes.get(name)
        data = request.data()
        eof = request.query.get("eof") == b"1"
        with process.stdin.turn, process.changed:
            left = _feed(process, data, request.gone) if data else 0
            if eof and not left and not process.stdin.broken:
                process.stdin.feed(b"", eof=True)
        return Response({"accepted": len(data) - left})

    def signal(self, request: Request, name: str) -> Response:
        """`POST .../agent/processes/{id}/signal`: `{"signal": 15, "group": true}`."""
        process = self._processes.get(name)
        body = request.json()
        number = field(body, "signal", int, signal.SIGTERM)
        if not 0 <= number < signal.NSIG:
            raise BadRequest(f"signal={number!r}: expected 0 to {signal.NSIG - 1}")
        process.signal(number, group=field(body, "group", bool, True))
        return Response({})

    def resize(self, request: Request, name: str) -> Response:
        """`POST .../agent/processes/{id}/resize`: `{"rows": 24, "cols": 80}`."""
        process = self._processes.get(name)
        body = request.json()
        size = _size([body.get("rows"), body.get("cols")])
        assert size
        process.resize(*size)
        return Response({})

    def forget(self, request: Request, name: str) -> Response:
        """`DELETE .../agent/processes/{id}`: kill it if it runs, drop its output."""
        self._processes.forget(self._processes.get(name))
        return Response({})


def _feed(process: KnownProcess, data: bytes, gone: Callable[[], bool]) -> int:
    """Give `data` to a process; how many bytes of it the process did not take in time."""
    deadline = time.monotonic() + STDIN_WAIT_S

    def drained() -> bool:
        while process.stdin.pending and not gone():
            if not process.changed.wait(min(CLIENT_CHECK_S, deadline - time.monotonic())):
                break
        return not process.stdin.pending

    if not drained():
        return len(data)
    process.stdin.feed(data, eof=False)
    drained()
    if process.stdin.lost:
        raise BrokenPipeError(errno.EPIPE, "the process does not read its stdin any more")
    return process.stdin.take_back()


def _argv(body: dict[str, Any]) -> list[bytes]:
    command = body.get("command")
    if isinstance(command, list) and command:
        argv = [unpack(word, "command") for word in command]
    elif isinstance(text := body.get("cmd") or command, str) and text.strip():
        import shlex

        try:
            argv = [word.encode() for word in shlex.split(text)]
        except ValueError as error:
            raise BadRequest(f"cmd={text!r}: {error}") from error
    else:
        raise BadRequest(f"command={command!r}: expected a list of one or more arguments")
    if any(b"\0" in word for word in argv):
        raise BadRequest("command: expected arguments without NUL")
    return argv


def _keeps_stdin(body: dict[str, Any]) -> bool:
    return bool(field(body, "keep_stdin", bool, False))


def _size(size: list[Any] | None) -> tuple[int, int] | None:
    if size is None:
        return None
    if len(size) == 2 and all(isinstance(n, int) and 0 < n < 65536 for n in size):
        return size[0], size[1]
    raise BadRequest(f"size of a terminal {size!r}: expected rows and columns from 1 to 65535")


def _offset(body: dict[str, Any], name: str) -> int:
    offset = field(body, name, int, 0)
    if offset < 0:
        raise BadRequest(f"{name}={offset}: expected a number of bytes from 0")
    return int(offset)
