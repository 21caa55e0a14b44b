"""Processes of the machine, over the agent's HTTP."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from pytest_flymachines.agent.answers import Update, pack
from pytest_flymachines.agent.base import Based
from pytest_flymachines.errors import NotFound
from pytest_flymachines.sandbox.channel import Command, ProcessUpdate, no_user

__all__ = ["Processes"]

# No request waits longer, because proxies end what is silent for a minute.
MAX_WAIT_S = 45.0
# Beyond what the machine was asked to wait.
GRACE_S = 30.0
# More stdin than this does not travel with the start.
STDIN_AT_START_BYTES = 8 << 20
STDIN_PIECE_BYTES = 1 << 20

_update = msgspec.json.Decoder(Update)


class Processes(Based):
    """The part of `Channel` that is about processes."""

    def start(self, command: Command, *, wait_s: float, forget: bool) -> ProcessUpdate:
        """See `Channel.start`."""
        if len(command.stdin) > STDIN_AT_START_BYTES:
            return self._start_with_long_stdin(command, wait_s, forget)
        body = self._start_body(command) | {"wait_s": min(wait_s, MAX_WAIT_S), "forget": forget}
        return self._start(body)

    def _start_body(self, command: Command) -> dict[str, Any]:
        """The request; what is default is left out, so that cassettes read well."""
        body: dict[str, Any] = {"command": [pack(word) for word in command.argv]}
        if cwd := self._resolved(command.cwd):
            body["cwd"] = pack(cwd)
        if command.env:
            body["env"] = _env(command.env)
        if command.user is not None:
            body["user"] = command.user
        if command.stdin:
            body["stdin"] = pack(command.stdin)
        if command.keep_stdin:
            body["keep_stdin"] = True
        if command.timeout_s is not None:
            body["timeout"] = command.timeout_s
        if command.pty:
            body["pty"] = list(command.pty)
        return body

    def _start(self, body: dict[str, Any]) -> ProcessUpdate:
        try:
            answer = self._client.call(
                "POST", "/exec", body, timeout_s=body["wait_s"] + GRACE_S, again=False
            )
        except NotFound as error:
            if "user" in body and "user" in error.message:
                raise no_user(body["user"], self._client.machine_id) from error
            raise
        return _update.decode(answer).to_update()

    def _start_with_long_stdin(
        self, command: Command, wait_s: float, forget: bool
    ) -> ProcessUpdate:
        body = self._start_body(command) | {"keep_stdin": True, "wait_s": 0, "forget": False}
        del body["stdin"]
        process = self._start(body)
        try:
            # one that ends before it has read everything is judged by its exit code alone
            with contextlib.suppress(BrokenPipeError):
                self.write_stdin(process.id, command.stdin, eof=not command.keep_stdin)
            return self.poll(process.id, stdout=0, stderr=0, wait_s=wait_s, forget=forget)
        except BaseException:
            self.forget(process.id)
            raise

    def poll(
        self, process: str, *, stdout: int, stderr: int, wait_s: float, forget: bool = False
    ) -> ProcessUpdate:
        """See `Channel.poll`."""
        wait_s = min(wait_s, MAX_WAIT_S)
        body = {"stdout": stdout, "stderr": stderr, "wait_s": wait_s, "forget": forget}
        path = f"/agent/processes/{quote(process, safe='')}/poll"
        answer = self._client.call("POST", path, body, timeout_s=wait_s + GRACE_S)
        return _update.decode(answer).to_update()

    def write_stdin(self, process: str, data: bytes, *, eof: bool) -> None:
        """See `Channel.write_stdin`."""
        path = f"/agent/processes/{quote(process, safe='')}/stdin"
        left = memoryview(data)
        while True:
            piece = bytes(left[:STDIN_PIECE_BYTES])
            last = len(piece) == len(left)
            answer = self._client.call(
                "POST", f"{path}?eof=1" if eof and last else path, content=piece, again=False
            )
            accepted = msgspec.json.decode(answer)["accepted"]
            left = left[accepted:]
            if last and accepted == len(piece):
                return

    def signal(self, process: str, number: int, *, group: bool = True) -> None:
        """See `Channel.signal`."""
        path = f"/agent/processes/{quote(process, safe='')}/signal"
        self._client.call("POST", path, {"signal": number, "group": group}, again=False)

    def resize(self, process: str, rows: int, cols: int) -> None:
        """See `Channel.resize`."""
        path = f"/agent/processes/{quote(process, safe='')}/resize"
        self._client.call("POST", path, {"rows": rows, "cols": cols})

    def forget(self, process: str) -> None:
        """See `Channel.forget`."""
        self._client.call("DELETE", f"/agent/processes/{quote(process, safe='')}")


def _env(env: Mapping[str, str]) -> dict[str, str | dict[str, str]]:
    return {name: pack(value.encode("utf-8", "surrogateescape")) for name, value in env.items()}
