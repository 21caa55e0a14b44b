"""Requests and answers, their digests and their compression."""

from __future__ import annotations

import binascii
import json
import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from .digests import HEADER, Damaged, checked, digest_of
from .wire import BadRequest, to_json

if TYPE_CHECKING:
    import h11

# stdin that is given to a start is the largest thing that comes at once.
MAX_BODY_BYTES = 64 << 20
# An answer up to this size is made whole before it is sent.
WHOLE_BYTES = 1 << 20
UNZIP_BYTES = 1 << 20
WORTH_COMPRESSING_BYTES = 4096
SAMPLE_BYTES = 32 * 1024


class Request:
    """One request.

    Attributes:
        headers: Names in lower case.
        gone: Asks whether the client has closed its connection.
    """

    def __init__(
        self, head: h11.Request, body: Callable[[], Iterator[bytes]], gone: Callable[[], bool]
    ) -> None:
        self.method = head.method.decode()
        self._target, _, self._query = head.target.partition(b"?")
        self.headers: dict[bytes, bytes] = dict(head.headers)
        self.gone = gone
        self._body = body

    @property
    def path(self) -> list[str]:
        """Parts of the path, decoded; `["v1", "apps", ...]`."""
        return [unquote(part).decode("utf-8", "replace") for part in self._target[1:].split(b"/")]

    @property
    def query(self) -> dict[str, bytes]:
        """Parameters, decoded; bytes, since they may be file names."""
        pairs = (part.partition(b"=") for part in self._query.split(b"&") if part)
        return {name.decode("latin-1"): unquote(value) for name, _, value in pairs}

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; an empty body is an empty object."""
        try:
            value = json.loads(self.data() or b"{}")
        except ValueError as error:
            raise BadRequest(f"the body is no JSON: {error}") from error
        if not isinstance(value, dict):
            raise BadRequest(f"the body is {type(value).__name__}, expected a JSON object")
        return value

    def data(self) -> bytes:
        """The whole body, checked."""
        data = bytearray()
        for piece in self.pieces():
            data += piece
            if len(data) > MAX_BODY_BYTES:
                raise BadRequest(f"the body is larger than {MAX_BODY_BYTES} bytes")
        return bytes(data)

    def pieces(self) -> Iterator[bytes]:
        """The body, uncompressed; its digest, where the request has one, is checked at the end.

        Raises:
            BadRequest: The body is damaged.
        """
        wanted = self.headers.get(HEADER.encode(), b"").decode("latin-1")
        try:
            yield from checked(self._plain(), wanted)
        except Damaged as error:
            raise BadRequest(f"the body was damaged on its way: {error}") from error

    def _plain(self) -> Iterator[bytes]:
        encoding = self.headers.get(b"content-encoding", b"identity")
        if encoding == b"identity":
            yield from self._body()
            return
        if encoding != b"gzip":
            raise BadRequest(f"content-encoding {encoding!r}: expected gzip or identity")
        unzip = zlib.decompressobj(wbits=31)
        try:
            for piece in self._body():
                while piece:
                    yield unzip.decompress(piece, UNZIP_BYTES)
                    piece = unzip.unconsumed_tail
        except zlib.error as error:
            raise BadRequest(f"the body is no gzip: {error}") from error
        if not unzip.eof:
            raise BadRequest("the body is cut off before its gzip trailer")

    def skip(self, limit: int) -> None:
        """Read away at most about `limit` bytes of the body."""
        for piece in self._body():
            limit -= len(piece)
            if limit < 0:
                return


class Response:
    """One answer.

    `value` is bytes, an iterator of bytes, or anything that is sent as JSON. Bytes get a digest
    in the header; so does what an iterator gives, where it is not much. That of more comes last.

    Attributes:
        rest: What follows `body`, or None.
        size: Bytes of `body` and `rest` together, if that is known.
    """

    def __init__(
        self,
        value: Any,
        status: int = 200,
        headers: dict[str, str] | None = None,
        *,
        size: int | None = None,
    ) -> None:
        self.status = status
        self.headers = headers or {}
        self.size = size
        self.rest: Iterator[bytes] | None = None
        if isinstance(value, dict):
            self.body = to_json(value)
            self.headers["content-type"] = "application/json"
            return
        if isinstance(value, bytes):
            value = iter([value])
        start = bytearray()
        for piece in value:
            start += piece
            if len(start) > WHOLE_BYTES:
                self.rest = value
                break
        self.body = bytes(start)
        self.headers["content-type"] = "application/octet-stream"
        if self.rest is None:
            self.headers[HEADER] = digest_of(self.body)


def gzipped(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The pieces of one gzip stream."""
    zipper = zlib.compressobj(1, wbits=31)
    for piece in pieces:
        if packed := zipper.compress(piece):
            yield packed
    yield zipper.flush()


def pays(data: bytes) -> bool:
    """Whether compression makes `data` enough smaller, by its first bytes."""
    if len(data) < WORTH_COMPRESSING_BYTES:
        return False
    sample = data[:SAMPLE_BYTES]
    return len(zlib.compress(sample, 1)) < 0.8 * len(sample)


def unquote(text: bytes) -> bytes:
    """Decode `%XX`."""
    first, *rest = text.split(b"%")
    try:
        return first + b"".join(binascii.a2b_hex(part[:2]) + part[2:] for part in rest)
    except binascii.Error as error:
        raise BadRequest(f"{text!r} in the address: expected two hex digits after %") from error
