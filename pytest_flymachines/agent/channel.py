"""`AgentChannel`: the channel to a machine over the bundled agent's HTTP."""

from __future__ import annotations

import contextlib
import errno
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal
from urllib.parse import quote

import msgspec

from pytest_flymachines._clock import Clock
from pytest_flymachines._http import Transport, TransportError
from pytest_flymachines.agent.answers import Entry, Listing, Update, pack
from pytest_flymachines.agent.client import AgentClient
from pytest_flymachines.agent.content import Damaged, Upload, checked
from pytest_flymachines.errors import file_error
from pytest_flymachines.sandbox.channel import Command, FileInfo, ProcessUpdate

__all__ = ["AgentChannel"]

# No request waits longer, because proxies end what is silent for a minute.
MAX_WAIT_S = 45.0
# Beyond what the machine was asked to wait.
GRACE_S = 30.0
# More stdin than this does not travel with the start.
STDIN_AT_START_BYTES = 8 << 20
STDIN_PIECE_BYTES = 1 << 20

_update = msgspec.json.Decoder(Update)
_entry = msgspec.json.Decoder(Entry)
_listing = msgspec.json.Decoder(Listing)


class AgentChannel:
    """The bundled agent as a `sandbox.channel.Channel`. Thread-safe.

    Reads, polls and other requests that do no harm twice are sent again when a connection
    drops; a download goes on from where it was.
    """

    name: Literal["agent", "api"] = "agent"

    def __init__(
        self,
        transport: Transport,
        *,
        base_url: str,
        host: str | None = None,
        app: str,
        machine_id: str,
        token: str | None,
        clock: Clock,
        base: bytes = b"",
    ) -> None:
        """Make a channel; nothing is sent yet.

        Args:
            transport: Carries the requests; not closed by the channel.
            base_url: Where the agent, or a proxy that routes to it, answers.
            host: `Host` header, if it is not that of `base_url`.
            app: App of the machine.
            machine_id: Machine; also sent as `fly-force-instance-id`, which Fly's proxy routes
                by (https://fly.io/docs/networking/dynamic-request-routing/).
            token: The agent's bearer token; None if it was started without.
            clock: Time between tries.
            base: Directory that relative paths start from; by default the agent's own base.
        """
        self._client = AgentClient(
            transport,
            base_url=base_url,
            host=host,
            app=app,
            machine_id=machine_id,
            token=token,
            clock=clock,
        )
        self._base = base

    def __repr__(self) -> str:
        return f"<AgentChannel {self._client.base_url}{self._client.prefix}>"

    def with_base(self, base: bytes) -> AgentChannel:
        """The same way in, with relative paths resolved from `base`."""
        other = object.__new__(AgentChannel)
        other._client = self._client
        other._base = base
        return other

    def close(self) -> None:
        """Nothing: the transport belongs to whoever made it."""

    # processes

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
        answer = self._client.call(
            "POST", "/exec", body, timeout_s=body["wait_s"] + GRACE_S, again=False
        )
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

    # files

    def read(self, path: bytes, *, offset: int = 0, size: int | None = None) -> Iterator[bytes]:
        """See `Channel.read`."""
        identity = ""
        attempt = 0
        while True:
            body: dict[str, Any] = {"path": self._path(path)}
            if offset:
                body["offset"] = offset
            if size is not None:
                body["size"] = size
            try:
                with self._client.stream("/agent/files/read", body) as response:
                    found = response.headers.get("x-file-id", "")
                    if identity and found != identity:
                        detail = "it was replaced while it was read"
                        raise file_error(errno.ESTALE, _shown(path), detail)
                    identity = found
                    for piece in checked(response):
                        offset += len(piece)
                        size = None if size is None else size - len(piece)
                        yield piece
                return
            except TransportError as error:
                if not self._client.pause(attempt):
                    raise self._client.unavailable(f"a read of {_shown(path)}", error) from error
                attempt += 1
            except Damaged as error:
                raise file_error(errno.EIO, _shown(path), f"damaged on its way: {error}") from error

    def write(self, path: bytes, data: Iterable[bytes], *, mode: int | None, parents: bool) -> int:
        """See `Channel.write`."""
        query = f"?path={self._quoted(path)}"
        if mode is not None:
            query += f"&mode={mode}"
        if parents:
            query += "&parents=1"
        size: int = self._upload(f"/agent/files{query}", data)["size"]
        return size

    def append(self, path: bytes, data: bytes) -> None:
        """See `Channel.append`."""
        with contextlib.closing(Upload([data])) as upload:
            self._client.call(
                "POST",
                f"/agent/files/append?path={self._quoted(path)}",
                content=data,
                headers=upload.headers,
                again=False,
            )

    def stat(self, path: bytes, *, follow: bool = True) -> FileInfo:
        """See `Channel.stat`."""
        body = {"path": self._path(path), "follow": follow}
        return _entry.decode(self._client.call("POST", "/agent/files/stat", body)).to_info()

    def listdir(self, path: bytes) -> list[FileInfo]:
        """See `Channel.listdir`."""
        answer = self._client.call("POST", "/agent/files/listdir", {"path": self._path(path)})
        return [entry.to_info() for entry in _listing.decode(answer).entries]

    def walk(self, path: bytes, patterns: Sequence[str] | None = None) -> list[FileInfo]:
        """See `Channel.walk`."""
        body: dict[str, Any] = {"path": self._path(path)}
        if patterns is not None:
            body["patterns"] = [pack(p.encode("utf-8", "surrogateescape")) for p in patterns]
        answer = self._client.call("POST", "/agent/files/walk", body)
        return [entry.to_info() for entry in _listing.decode(answer).entries]

    def mkdir(self, path: bytes, *, mode: int, parents: bool, exist_ok: bool) -> None:
        """See `Channel.mkdir`."""
        self._change("mkdir", path, mode=mode, parents=parents, exist_ok=exist_ok)

    def remove(self, path: bytes, *, recursive: bool, missing_ok: bool) -> None:
        """See `Channel.remove`."""
        self._change("remove", path, recursive=recursive, missing_ok=missing_ok)

    def rename(self, source: bytes, target: bytes) -> None:
        """See `Channel.rename`."""
        body = {"source": self._path(source), "target": self._path(target)}
        self._client.call("POST", "/agent/files/rename", body, again=False)

    def chmod(self, path: bytes, mode: int) -> None:
        """See `Channel.chmod`."""
        self._change("chmod", path, mode=mode)

    def symlink(self, path: bytes, target: bytes) -> None:
        """See `Channel.symlink`."""
        self._change("symlink", path, target=pack(target))

    def touch(self, path: bytes, *, mode: int, exist_ok: bool) -> None:
        """See `Channel.touch`."""
        self._change("touch", path, mode=mode, exist_ok=exist_ok)

    def _change(self, verb: str, path: bytes, **fields: Any) -> None:
        body = {"path": self._path(path), **fields}
        self._client.call("POST", f"/agent/files/{verb}", body, again=False)

    # trees

    def put_tree(self, path: bytes, tar: Iterable[bytes]) -> None:
        """See `Channel.put_tree`."""
        self._upload(f"/agent/trees?path={self._quoted(path)}", tar)

    def get_tree(self, path: bytes, *, exclude: Sequence[str] = ()) -> Iterator[bytes]:
        """See `Channel.get_tree`."""
        body: dict[str, Any] = {"path": self._path(path)}
        # the caller filters again, so a pattern that JSON cannot carry may be left out
        if patterns := [p for p in exclude if p.isascii() or _is_utf8(p)]:
            body["exclude"] = patterns
        try:
            with self._client.stream("/agent/trees/get", body) as response:
                yield from checked(response)
        except TransportError as error:
            raise self._client.unavailable(f"a download of {_shown(path)}", error) from error
        except Damaged as error:
            raise file_error(errno.EIO, _shown(path), f"damaged on its way: {error}") from error

    def _upload(self, path: str, data: Iterable[bytes]) -> dict[str, Any]:
        with contextlib.closing(Upload(data)) as upload:
            if self._client.remote:
                upload.compress_if_it_pays()
            answer = self._client.call("PUT", path, content=upload.content, headers=upload.headers)
        result: dict[str, Any] = msgspec.json.decode(answer)
        return result

    def _path(self, path: bytes) -> str | dict[str, str]:
        return pack(self._resolved(path))

    def _quoted(self, path: bytes) -> str:
        return quote(self._resolved(path))

    def _resolved(self, path: bytes) -> bytes:
        return posixpath.join(self._base, path) if path else self._base


def _env(env: Mapping[str, str]) -> dict[str, str | dict[str, str]]:
    return {name: pack(value.encode("utf-8", "surrogateescape")) for name, value in env.items()}


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")
