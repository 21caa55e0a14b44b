"""JSON in bodies: its value, and how it is laid out in a cassette.

A JSON body is laid out over lines, and a note says how it was laid out before, so that replay
gives back the very bytes.
"""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["from_text", "json_value", "to_text"]

_LAYOUTS = {"compact": -1, "one line": 0}
#: What msgspec raises for a body that is no JSON, or too deep or too large for it.
_REFUSED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
#: Levels of objects and arrays; what looks through a value goes down one call for each.
_DEEPEST = 200


def json_value(body: bytes) -> Any:
    """The value of a JSON object or array; None for any other body, and for a very deep one."""
    if body[:1] not in (b"{", b"["):
        return None
    try:
        value = msgspec.json.decode(body)
    except _REFUSED:
        return None
    may_be_deep = body.count(b"[") + body.count(b"{") > _DEEPEST
    return None if may_be_deep and _is_deep(value) else value


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_DEEPEST):
        items = (item.values() if isinstance(item, dict) else item for item in level)
        level = [inner for inners in items for inner in inners if isinstance(inner, dict | list)]
        if not level:
            return False
    return True


def to_text(body: bytes) -> tuple[bytes, str]:
    """A body laid out for people, and a note of how to get the original back."""
    end = b"\n" if body.endswith(b"\n") else b""
    if json_value(body) is not None:  # what cannot be compared as JSON is compared as it is
        for layout, indent in _LAYOUTS.items():
            try:
                if msgspec.json.format(body, indent=indent) + end == body:
                    return msgspec.json.format(body, indent=2), layout + (" +" if end else "")
            except _REFUSED:
                break
    return body, ""


def from_text(text: bytes, layout: str) -> bytes:
    """The original of a body that was laid out for people."""
    if not layout:
        return text
    name, end, _ = layout.partition(" +")
    body: bytes = msgspec.json.format(text, indent=_LAYOUTS[name])
    return body + b"\n" if end else body
