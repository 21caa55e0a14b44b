"""Request bodies: decoded as Go does it, with the texts of Go's decoder when they do not fit.

Go ignores unknown fields, takes null as "not given", and refuses other types.
Example of a live text: superfly/docs issue 2187.
"""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar

import msgspec

from pytest_flymachines.emulator.answers import Problem
from pytest_flymachines.emulator.config import decode_hook

__all__ = ["decode"]

T = TypeVar("T")

MISMATCH = re.compile(r"^Expected `(?P<want>[^`]+)`, got `(?P<got>[^`]+)`")
PATH = re.compile(r" - at `(?:key in )?\$?\.?(?P<path>[^`]*)`$")

#: Where a character does not belong, as Python's decoder says it, and as Go's does.
SYNTAX = (
    ("Expecting value", "looking for beginning of value"),
    ("Expecting property name", "looking for beginning of object key string"),
    ("Expecting ':'", "after object key"),
    ("Expecting ','", "after object key:value pair"),
    ("Extra data", "after top-level value"),
)

GO_KINDS = {"str": "string", "int": "number", "float": "number", "bool": "bool"}
GO_TYPES = {"str": "string", "int": "int", "float": "float64", "bool": "bool", "array": "[]string"}


def decode(raw: bytes, kind: type[T], go_type: str, *, keep_nulls: bool = False) -> T:
    """Read a JSON body.

    Args:
        raw: The body; empty or blank reads as `{}`.
        kind: A msgspec struct type.
        go_type: What the server's decoder calls it, for error texts: `main.stopRequest`.
        keep_nulls: Null has a meaning of its own (it removes something).

    Raises:
        Problem: 400 with Go's text.
    """
    try:
        value: Any = msgspec.json.decode(raw) if raw.strip() else {}
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Problem(400, _syntax_error(raw)) from None
    try:
        return msgspec.convert(
            value if keep_nulls else _without_nulls(value), kind, dec_hook=decode_hook
        )
    except msgspec.ValidationError as error:
        raise Problem(400, _type_error(str(error), go_type)) from None


def _without_nulls(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value if item is not None]
    return value


def _syntax_error(raw: bytes) -> str:
    try:
        json.loads(raw.decode("utf-8", "replace"))
    except json.JSONDecodeError as error:
        where = next((go for python, go in SYNTAX if error.msg.startswith(python)), SYNTAX[0][1])
        rest = error.doc[error.pos :]
        return f"invalid character '{rest[0]}' {where}" if rest else "unexpected EOF"
    return "invalid UTF-8 in string"


def _type_error(text: str, go_type: str) -> str:
    path = PATH.search(text)
    found = MISMATCH.match(text)
    if found is None:
        return PATH.sub("", text)
    want = found["want"].removesuffix(" | null").split(" | ")[-1]
    got = GO_KINDS.get(found["got"], found["got"])
    if path is None:
        return f"json: cannot unmarshal {got} into Go value of type {go_type}"
    field = re.sub(r"\[[^\]]*\]", "", path["path"])
    struct = go_type.rsplit(".", 1)[-1]
    kind = GO_TYPES.get(want) or f"fly.{field.rsplit('.', 1)[-1]}"
    return f"json: cannot unmarshal {got} into Go struct field {struct}.{field} of type {kind}"
