"""Files and trees of the machine, over the agent's HTTP."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from pytest_flymachines._http import TransportError
from pytest_flymachines.agent.answers import Entry, Listing, pack
from pytest_flymachines.agent.base import Based, shown
from pytest_flymachines.agent.content import Upload
from pytest_flymachines.agent.server.digests import (
    HEADER,
    Damaged,
    SourceFailed,
    checked,
    digest_of,
)
from pytest_flymachines.agent.server.packing import SHORTER
from pytest_flymachines.errors import SandboxFileError, file_error
from pytest_flymachines.sandbox.channel import FileInfo

__all__ = ["Files"]

_entry = msgspec.json.Decoder(Entry)
_listing = msgspec.json.Decoder(Listing)


class Files(Based):
    """The part of `Channel` that is about files and trees."""

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
                        raise file_error(errno.ESTALE, shown(path), detail)
                    identity = found
                    for piece in checked(response.iter_bytes(), response.headers.get(HEADER, "")):
                        offset += len(piece)
                        size = None if size is None else size - len(piece)
                        yield piece
                return
            except TransportError as error:
                if not self._client.pause(attempt):
                    raise self._client.unavailable(f"a read of {shown(path)}", error) from error
                attempt += 1
            except Damaged as error:
                raise _failed(path, error) from error

    def write(
        self,
        path: bytes,
        data: Iterable[bytes],
        *,
        mode: int | None,
        parents: bool,
        mtime_ns: int | None = None,
    ) -> int:
        """See `Channel.write`."""
        query = f"?path={self._quoted(path)}"
        if mode is not None:
            query += f"&mode={mode}"
        if parents:
            query += "&parents=1"
        if mtime_ns is not None:
            query += f"&mtime_ns={mtime_ns}"
        size: int = self._upload(f"/agent/files{query}", data)["size"]
        return size

    def append(self, path: bytes, data: bytes) -> None:
        """See `Channel.append`."""
        self._client.call(
            "POST",
            f"/agent/files/append?path={self._quoted(path)}",
            content=data,
            headers={"content-type": "application/octet-stream", HEADER: digest_of(data)},
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
                yield from checked(response.iter_bytes(), response.headers.get(HEADER, ""))
        except TransportError as error:
            raise self._client.unavailable(f"a download of {shown(path)}", error) from error
        except Damaged as error:
            raise _failed(path, error) from error

    def _upload(self, path: str, data: Iterable[bytes]) -> dict[str, Any]:
        with contextlib.closing(Upload(data)) as upload:
            if self._client.remote:
                upload.compress_if_it_pays()
            answer = self._client.call("PUT", path, content=upload.content, headers=upload.headers)
        result: dict[str, Any] = msgspec.json.decode(answer)
        return result


def _failed(path: bytes, error: Damaged) -> SandboxFileError:
    """The error for a body that did not come whole."""
    if isinstance(error, SourceFailed):
        detail = SHORTER if error.errno == errno.ESTALE else ""
        return file_error(error.errno, shown(error.path or path), detail)
    return file_error(errno.EIO, shown(path), f"damaged on its way: {error}")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
