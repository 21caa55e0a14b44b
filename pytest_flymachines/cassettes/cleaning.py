"""A whole recording made fit to be written: no secret in it, and nothing that only we need.

Besides each text alone, pieces that belong together are looked at together: a secret may be
cut in two by the end of one answer and the start of the next.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from base64 import b64encode
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
from vcr.request import Request

from pytest_flymachines.cassettes.bodies import from_text, to_text
from pytest_flymachines.cassettes.meaning import json_value, target
from pytest_flymachines.cassettes.scrub import Scrubber
from pytest_flymachines.cassettes.volatile import BODIES, OWN_FILES, OWN_METADATA, SECRET_NAME

__all__ = ["clean"]

Exchange = tuple[Request, dict[str, Any]]

_OWN = "(left out by pytest-flymachines)"
_NUMBERS = re.compile(r"\d+")


def clean(exchanges: list[Exchange], scrubber: Scrubber) -> None:
    """Take the secrets out of recorded requests and answers, in place."""
    for request, _ in exchanges:
        if BODIES.fullmatch(f"{request.method} {target(request.uri)}"):
            request.body = _OWN.encode()
    bodies = [body for exchange in exchanges for body in _bodies(exchange)]
    for body in bodies:
        _learn(body.value, scrubber)
    groups: dict[tuple[str, ...], list[_Piece]] = defaultdict(list)
    for body in bodies:
        for piece in body.pieces():
            piece.put(scrubber.data(piece.get()))
            groups[piece.group].append(piece)
    for pieces in groups.values():
        _clean_together(pieces, scrubber)
    digests = dict(pair for body in bodies for pair in body.finish())
    for request, response in exchanges:
        request.uri = scrubber.text(request.uri)
        for headers in (request.headers, response["headers"]):
            for name, value in headers.items():
                headers[name] = _clean_header(value, scrubber, digests)


def _clean_header(value: Any, scrubber: Scrubber, digests: dict[str, str]) -> Any:
    if isinstance(value, list):
        return [_clean_header(item, scrubber, digests) for item in value]
    return scrubber.text(digests.get(value, value))


class _Body:
    """One body: the value of its JSON, or its bytes."""

    def __init__(self, owner: Any, side: str, address: str) -> None:
        self._owner = owner
        self._side = side
        self._address = address
        self._old: bytes = (owner.body if side == "request" else owner["string"]) or b""
        value = json_value(self._old)
        # one text as the only item of a list, so that every text has a container
        self.value: Any = [self._old] if value is None else value
        self._is_json = value is not None

    def pieces(self) -> Iterator[_Piece]:
        name = self.value.get("id") if isinstance(self.value, dict) else None
        yield from _pieces(self.value, (self._side, str(name or self._address)))

    def finish(self) -> Iterator[tuple[str, str]]:
        """Put the body back; gives the digests before and after if it changed."""
        new = msgspec.json.encode(self.value) if self._is_json else self.value[0]
        if self._is_json:
            if self.value == json_value(self._old):
                return
            new = from_text(new, to_text(self._old)[1])
        if new != self._old:
            new = _with_tail(new, self._old)
            if self._side == "request":
                self._owner.body = new
            else:
                self._owner["string"] = new
            yield hashlib.sha256(self._old).hexdigest(), hashlib.sha256(new).hexdigest()


def _with_tail(new: bytes, old: bytes) -> bytes:
    """A body that ends in the digest of the rest, as long ones of our agent do, still does."""
    tail = len(hashlib.sha256().hexdigest())
    if old[-tail:] == hashlib.sha256(old[:-tail]).hexdigest().encode():
        return new[:-tail] + hashlib.sha256(new[:-tail]).hexdigest().encode()
    return new


@dataclass
class _Piece:
    """One text in a body."""

    container: Any
    key: Any
    group: tuple[str, ...]
    is_base64: bool = False

    def get(self) -> bytes:
        value = self.container[self.key]
        if self.is_base64:
            return binascii.a2b_base64(value)
        return value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")

    def put(self, data: bytes) -> None:
        if self.is_base64:
            self.container[self.key] = b64encode(data).decode()
        elif isinstance(self.container[self.key], bytes):
            self.container[self.key] = data
        else:
            self.container[self.key] = data.decode("utf-8", "surrogateescape")


def _bodies(exchange: Exchange) -> Iterator[_Body]:
    request, response = exchange
    address = _NUMBERS.sub("", target(request.uri))
    yield _Body(request, "request", address)
    yield _Body(response["body"], "answer", address)


def _pieces(value: Any, group: tuple[str, ...]) -> Iterator[_Piece]:
    """Every text in a JSON value; our own files are dropped by the way."""
    if isinstance(value, dict):
        if str(value.get("guest_path", "")).startswith(OWN_FILES) and value.get("raw_value"):
            value["raw_value"] = _OWN
        for name in value:
            if str(name).startswith(OWN_METADATA):
                value[name] = _OWN
        items: Iterator[tuple[Any, Any]] = iter(value.items())
    else:
        items = enumerate(value)
    for key, item in list(items):
        inner = (*group, key) if isinstance(key, str) and key != "base64" else group
        if isinstance(item, str | bytes):
            yield _Piece(value, key, inner, key == "base64" and _is_base64(item))
        elif isinstance(item, dict | list):
            yield from _pieces(item, inner)


def _is_base64(text: str | bytes) -> bool:
    try:
        return b64encode(binascii.a2b_base64(text)).decode() == text
    except (binascii.Error, ValueError):
        return False


def _learn(value: Any, scrubber: Scrubber) -> None:
    """Take values of secret variables for secrets, and put their names in their place."""
    if not isinstance(value, dict):
        if isinstance(value, list):
            for item in value:
                _learn(item, scrubber)
        return
    for key, item in value.items():
        if key == "env" and isinstance(item, dict):
            for name, secret in item.items():
                if SECRET_NAME.search(name) and isinstance(secret, str) and secret:
                    scrubber.add(name, secret, shortest=8)
                    item[name] = f"<{name}>"
        else:
            _learn(item, scrubber)


def _clean_together(pieces: list[_Piece], scrubber: Scrubber) -> None:
    """Find what is spread over the ends of pieces; placeholders keep the pieces' lengths."""
    if len(pieces) < 2:
        return
    parts = [piece.get() for piece in pieces]
    whole = b"".join(parts)
    scrubbed = scrubber.data(whole, depth=0)
    if scrubbed is whole:
        return
    start = 0
    for piece, part in zip(pieces, parts, strict=True):
        piece.put(scrubbed[start : start + len(part)])
        start += len(part)
