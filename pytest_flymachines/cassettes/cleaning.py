"""A whole recording made fit to be written: no secret in it, and nothing that only we need.

Besides each text alone, pieces of one stream are looked at together: a secret may be cut in two
by the end of one answer and the start of the next. What is sent in pieces stays as it is then,
because replay sees one piece at a time; the last check (`leaks`) refuses it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec
from vcr.request import Request

from pytest_flymachines.cassettes.carriers import TEXT
from pytest_flymachines.cassettes.commands import pack_argument
from pytest_flymachines.cassettes.jsons import json_value
from pytest_flymachines.cassettes.kept import Kept, whole
from pytest_flymachines.cassettes.meaning import target
from pytest_flymachines.cassettes.packing import sha256, with_tail
from pytest_flymachines.cassettes.parts import Body, Piece
from pytest_flymachines.cassettes.places import REQUESTS, TREES, Exchange, bodies
from pytest_flymachines.cassettes.scripts import without_secret_variables
from pytest_flymachines.cassettes.scrub import DEPTH, Scrubber
from pytest_flymachines.cassettes.streams import Streams
from pytest_flymachines.cassettes.texts import BETWEEN
from pytest_flymachines.cassettes.variables import learn, learn_script
from pytest_flymachines.cassettes.volatile import BODIES, OWN_FILES, OWN_METADATA, RUNNER

__all__ = ["BodyCleaner", "clean"]

_OWN = "(left out by pytest-flymachines)"
_DIGEST = re.compile(rb"[0-9a-f]{64}")
# a digest may be of a list of digests
_ROUNDS = 3
_RUNNER = RUNNER.encode()
# as many more may be around a text in a body than around the text itself: base64, and gzip in it
_CARRIERS = 2

_Key = tuple[int, int, int]


def clean(
    exchanges: list[Exchange], scrubber: Scrubber, digests: dict[bytes, bytes] | None = None
) -> None:
    """Take the secrets out of recorded requests and answers, in place.

    Args:
        exchanges: The requests and answers.
        scrubber: Knows the secrets.
        digests: Those of texts with secrets, and what they are without; more are added.
    """
    for request, _ in exchanges:
        if BODIES.fullmatch(f"{request.method} {target(request.uri)}"):
            request.body = _OWN.encode()
        elif isinstance(request.body, bytes) and _RUNNER in request.body:
            request.body = _without_pack(request.body)
    cleaner = _Cleaner(exchanges, scrubber, {} if digests is None else digests)
    cleaner.learn()
    cleaner.clean_names()
    cleaner.clean_streams()
    cleaner.clean_texts()
    cleaner.follow_digests()
    cleaner.store()
    for request, response in exchanges:
        request.uri = scrubber.text(request.uri)
        for headers in (request.headers, response["headers"]):
            for name, value in headers.items():
                headers[name] = cleaner.value(value)
        for name in ("status", "recorded"):
            response[name] = cleaner.value(response.get(name, {}))


class BodyCleaner:
    """Leaves the bodies of requests, one after the other, as `clean` would leave them.

    What was sent with a secret has another digest without it, which later requests may tell.

    Args:
        scrubber: Knows the secrets.
    """

    def __init__(self, scrubber: Scrubber) -> None:
        self._scrubber = scrubber
        self._digests: dict[bytes, bytes] = {}

    def clean(self, method: str, uri: str, body: bytes, service: str) -> bytes:
        """The body of one request; the same object if nothing is to be changed."""
        new = self._without_secrets(method, uri, body, service)
        return _told(new, self._digests) if self._digests else new

    def _without_secrets(self, method: str, uri: str, body: bytes, service: str) -> bytes:
        scrubber = self._scrubber
        if body[:1] not in (b"{", b"["):
            new = scrubber.data(body)
            if new is body:
                return body
            new = with_tail(new, body)
            self._digests[sha256(body)] = sha256(new)
            return new
        # its texts stand there as they are meant, or in base64
        if b"\\" not in body and not scrubber.find(body, DEPTH + _CARRIERS):
            return body
        notes = {"service": service} if service else {}
        blank = {"status": {}, "headers": {}, "body": {"string": b""}, "recorded": notes}
        exchange = (Request(method, uri, body, {}), blank)
        if b"\\" in body and not scrubber.find(_read(exchange), DEPTH + _CARRIERS):
            return body
        clean([exchange], scrubber, self._digests)
        new = bytes(exchange[0].body)
        return body if new == body else new


def _read(exchange: Exchange) -> bytes:
    """The texts of a request as they are meant, together."""
    body: bytes = exchange[0].body
    if _RUNNER not in body:
        value = json_value(body)
        return body if value is None else BETWEEN.join(_words(value))
    asked = bodies(0, exchange)[0]
    carried = (piece.get() for piece in asked.pieces() if piece.codec is not TEXT)
    return BETWEEN.join([*_words(asked.value), *carried])


def _words(value: Any) -> Iterator[bytes]:
    """Names and texts of a JSON value."""
    if isinstance(value, str):
        yield value.encode("utf-8", "surrogateescape")
    elif isinstance(value, list):
        for item in value:
            yield from _words(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield name.encode("utf-8", "surrogateescape")
            yield from _words(item)


def _without_pack(body: bytes) -> bytes:
    """A command to the runner without bytes of the repository."""
    value = json_value(body)
    at = pack_argument(value)
    if at is None or value["command"][at].startswith("@"):
        return body
    value["command"][at] = f"t{_OWN}"
    return msgspec.json.encode(value)


class _Cleaner:
    """Goes over a recording, one body at a time, and notes what becomes of each text."""

    def __init__(
        self, exchanges: list[Exchange], scrubber: Scrubber, digests: dict[bytes, bytes]
    ) -> None:
        self._exchanges = exchanges
        self._scrubber = scrubber
        self._streams = Streams()
        self._changes: dict[_Key, bytes] = {}
        self._in_streams: set[_Key] = set()
        self._digests = digests

    def _bodies(self) -> Iterator[tuple[int, int, Body]]:
        for number, exchange in enumerate(self._exchanges):
            for side, body in enumerate(bodies(number, exchange)):
                yield number, side, body

    def _pieces(self) -> Iterator[tuple[_Key, Piece]]:
        for number, side, body in self._bodies():
            for position, piece in enumerate(body.pieces()):
                yield (number, side, position), piece

    def learn(self) -> None:
        """Take values of secret variables for secrets, and put streams together."""
        staged = []
        for number, side, body in self._bodies():
            if _drop_own(body.value) + learn(body.value, self._scrubber):
                body.store()
            for position, piece in enumerate(body.pieces()):
                if piece.is_script and str(piece.raw).startswith("@"):
                    staged.append(piece.raw[1:])
                if piece.place is not None:
                    key = (number, side, position)
                    if piece.place.stream[0] != REQUESTS:
                        self._in_streams.add(key)
                    data = piece.raw if isinstance(piece.raw, Kept) else piece.get()
                    self._streams.add(piece.place, key, data)
        for name in staged:
            learn_script(self._streams.content((REQUESTS, "staged", name)), self._scrubber)

    def clean_streams(self) -> None:
        """Take out what is in the streams of answers; placeholders keep the pieces' lengths."""
        for name, stream in self._streams:
            if name[0] == REQUESTS or not self._scrubber.scan(stream.content):
                continue
            old = whole(stream.content)
            new = self._scrubber.data(old)
            # sizes are told, and offsets asked for; but nobody asks for a tree that was sent
            if len(new) != len(old) and name[0] != TREES:
                continue
            self._digests[sha256(old)] = sha256(new)
            for part in stream.parts:
                clean = new[part.start : part.end if part.end < len(old) else None]
                if clean != old[part.start : part.end]:
                    self._changes[part.piece] = clean + sha256(clean)[: part.tail]

    def clean_names(self) -> None:
        """Take out what is in names of JSON objects, as long as they stay different."""
        for _, _, body in self._bodies():
            if _rename(body.value, self._scrubber):
                body.store()

    def clean_texts(self) -> None:
        """Take out what is in all other texts."""
        for key, piece in self._pieces():
            if key in self._in_streams:
                continue
            if isinstance(piece.raw, Kept) and not self._scrubber.scan(piece.raw):
                continue
            old = piece.get()
            new = self._scrubber.data(without_secret_variables(old) if piece.is_script else old)
            if new != old:
                self._changes[key] = with_tail(new, old)

    def follow_digests(self) -> None:
        """Have digests that are told be those of what is there now."""
        for _ in range(_ROUNDS if self._changes else 0):
            for key, piece in self._pieces():
                if key in self._changes:
                    self._digests[sha256(piece.get())] = sha256(self._changes[key])
            changed = False
            for key, piece in self._pieces():
                if key not in self._changes and isinstance(piece.raw, Kept):
                    continue
                old = self._changes.get(key) or piece.get()
                new = _told(old, self._digests)
                if new != old:
                    self._changes[key] = new
                    changed = True
            if not changed:
                return

    def store(self) -> None:
        """Put the changes where they belong."""
        changed = {key[:2] for key in self._changes}
        for number, side, body in self._bodies():
            if (number, side) in changed:
                for position, piece in enumerate(body.pieces()):
                    if (new := self._changes.get((number, side, position))) is not None:
                        piece.put(new)
                body.store()

    def value(self, value: Any) -> Any:
        """A header, or something else beside the bodies."""
        if isinstance(value, list):
            return [self.value(item) for item in value]
        if isinstance(value, dict):
            return {name: self.value(item) for name, item in value.items()}
        if not isinstance(value, str):
            return value
        told = _told(value.encode("utf-8", "surrogateescape"), self._digests)
        return self._scrubber.text(told.decode("utf-8", "surrogateescape"))


def _told(text: bytes, digests: dict[bytes, bytes]) -> bytes:
    """A text with the digests of what is there now; the same object if it tells none."""
    return _DIGEST.sub(lambda match: digests.get(match[0], match[0]), text)


def _rename(value: Any, scrubber: Scrubber) -> bool:
    """Take secrets out of the names of a JSON value; where two would be one, they stay."""
    changed = False
    if isinstance(value, dict):
        names = {name: scrubber.text(name) for name in value}
        changed = list(names) != list(names.values()) and len(set(names.values())) == len(names)
        if changed:
            items = [(names[name], item) for name, item in value.items()]
            value.clear()
            value.update(items)
    for item in value.values() if isinstance(value, dict) else value:
        if isinstance(item, dict | list):
            changed = _rename(item, scrubber) or changed
    return changed


def _drop_own(value: Any) -> bool:
    """Leave out our own files and marks."""
    changed = False
    if isinstance(value, list):
        for item in value:
            changed = _drop_own(item) or changed
    if not isinstance(value, dict):
        return changed
    if str(value.get("guest_path", "")).startswith(OWN_FILES) and value.get("raw_value"):
        value["raw_value"], changed = _OWN, True
    for name, item in value.items():
        if str(name).startswith(OWN_METADATA):
            value[name], changed = _OWN, True
        else:
            changed = _drop_own(item) or changed
    return changed
