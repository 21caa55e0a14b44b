"""The texts in the bodies of an exchange, decoded, and which stream each is a piece of."""

from __future__ import annotations

import zlib
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import msgspec

from pytest_flymachines.cassettes.carriers import BASE64, TEXT, Codec
from pytest_flymachines.cassettes.jsons import from_text, json_value, to_text
from pytest_flymachines.cassettes.kept import LARGEST_JSON, Kept, whole
from pytest_flymachines.cassettes.streams import Place
from pytest_flymachines.sandbox.runner import unpack_block

__all__ = ["Body", "Found", "Piece", "Way"]

Way: TypeAlias = tuple[str | int, ...]


class Found(NamedTuple):
    """What is known of a text.

    Attributes:
        codec: How to read it, when it does not say so itself.
        place: Which stream it is a piece of.
        is_script: It is a command as the runner takes it.
    """

    codec: Codec | None = None
    place: Place | None = None
    is_script: bool = False


@dataclass
class Piece:
    """One text in a body."""

    container: Any
    key: Any
    codec: Codec
    place: Place | None
    is_script: bool

    @property
    def raw(self) -> Any:
        """What stands there."""
        return self.container[self.key]

    def get(self) -> bytes:
        """The bytes that it means."""
        return self.codec.decode(self.raw)

    def put(self, data: bytes) -> None:
        """Have it mean other bytes."""
        self.container[self.key] = self.codec.encode(data, self.raw)


class Body:
    """One body: the value of its JSON, or its bytes.

    Args:
        owner: What has it.
        name: Under which name.
        opaque: It is content, whatever it looks like.

    Attributes:
        old: What it is.
        value: What the pieces are in.
        locate: What is known of the text at a way.
    """

    def __init__(self, owner: Any, name: str, *, opaque: bool = False) -> None:
        self._owner = owner
        self._name = name
        self.old: bytes | Kept = _body(owner, name) or b""
        value = None
        if not opaque and (not isinstance(self.old, Kept) or self.old.size <= LARGEST_JSON):
            value = json_value(whole(self.old))
        self._is_json = value is not None
        # one text as the only item of a list, so that every text has a container
        self.value: Any = value if self._is_json else [self.old]
        self._blocks: list[str] = []
        self.locate: Callable[[Way], Found] = lambda _: Found()

    def open_blocks(self) -> list[str]:
        """Take apart what the runner said; the words of its first line."""
        text = self.value.get("stdout") if isinstance(self.value, dict) else None
        if not isinstance(text, str):
            return []
        first, end, rest = text.partition("\n")
        *blocks, last = rest.split(".\n")
        try:
            for block in blocks:
                unpack_block(block)
        except (ValueError, OSError, EOFError, zlib.error):
            return []
        self._blocks = [first + end, *(f"{block}.\n" for block in blocks), last]
        self.value["stdout"] = self._blocks
        return first.split(" ")

    def pieces(self) -> Iterator[Piece]:
        """Every text in it."""
        for container, key, way in _texts(self.value, ()):
            codec, place, is_script = self.locate(way if self._is_json else ())
            if codec is None:
                codec = BASE64 if key == "base64" else TEXT
            if codec is BASE64 and not _is_base64(container[key]):
                codec = TEXT
            yield Piece(container, key, codec, place, is_script)

    def store(self) -> bytes:
        """Put it back with what was changed; the new body."""
        if self._blocks:
            self.value["stdout"], blocks = "".join(self._blocks), self._blocks
        if self._is_json:
            new = from_text(msgspec.json.encode(self.value), to_text(whole(self.old))[1])
        else:
            new = whole(self.value[0])
        if self._blocks:
            self.value["stdout"] = blocks
        _set_body(self._owner, self._name, new)
        return new


def _body(owner: Any, name: str) -> Any:
    return owner[name] if isinstance(owner, dict) else getattr(owner, name)


def _set_body(owner: Any, name: str, body: bytes) -> None:
    if isinstance(owner, dict):
        owner[name] = body
    else:
        setattr(owner, name, body)


def _texts(value: Any, way: Way) -> Iterator[tuple[Any, Any, Way]]:
    """Every text in a JSON value."""
    for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
        inner = (*way, key)
        if isinstance(item, str | bytes | Kept):
            yield value, key, inner
        elif isinstance(item, dict | list):
            yield from _texts(item, inner)


def _is_base64(text: Any) -> bool:
    try:
        return isinstance(text, str) and b64encode(b64decode(text, validate=True)).decode() == text
    except ValueError:
        return False
