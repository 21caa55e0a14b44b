"""Values on the wire: JSON that reads well, and bytes in it."""

from __future__ import annotations

import base64
import errno
import json
from typing import Any

MAX_WAIT_S = 300.0


class BadRequest(Exception):
    """A request that makes no sense: says which field, its value and what is accepted."""

    status = 400


class NotHere(Exception):
    """No process, upload or other thing of this name."""

    status = 404


class Refused(Exception):
    """The thing cannot be done in the present state."""

    status = 409


def to_json(value: Any) -> bytes:
    """Encode in the order given; text stays text."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def pack(data: bytes) -> str | dict[str, str]:
    """Bytes as JSON: text where they are UTF-8, else `{"base64": ...}`.

    What is mostly NUL is no text, and as text would be six times as long.
    """
    if data.count(0) * 2 <= len(data):
        try:
            return data.decode()
        except UnicodeDecodeError:
            pass
    return {"base64": base64.b64encode(data).decode()}


def unpack(value: Any, name: str) -> bytes:
    """The bytes of a packed value."""
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError as error:
            raise BadRequest(f"{name}: text with a lone surrogate; send it as base64") from error
    if isinstance(value, dict) and isinstance(value.get("base64"), str):
        try:
            return base64.b64decode(value["base64"], validate=True)
        except ValueError as error:  # binascii.Error is one
            raise BadRequest(f"{name}: not base64: {error}") from error
    raise BadRequest(f'{name}={value!r}: expected text or {{"base64": text}}')


def whole_characters(data: bytes) -> int:
    """How many bytes of `data` come before a UTF-8 character that is cut off at its end."""
    for back in range(1, min(3, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 == 0x80:
            continue
        wanted = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
        return len(data) - back if wanted > back and byte < 0xF8 else len(data)
    return len(data)


def field(body: dict[str, Any], name: str, kind: type | tuple[type, ...], default: Any) -> Any:
    """A field of a JSON body; null counts as missing.

    Raises:
        BadRequest: It has another type.
    """
    value = body.get(name)
    if value is None:
        return default
    # bool is an int to isinstance, but not to whoever reads the request
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        wanted = " or ".join(k.__name__ for k in kinds)
        raise BadRequest(f"{name}={value!r}: expected {wanted}")
    return value


def seconds(body: dict[str, Any], name: str, default: float | None) -> float | None:
    """A field that is a number of seconds, not negative."""
    value = field(body, name, (int, float), default)
    if value is not None and not 0 <= value < 1e9:
        raise BadRequest(f"{name}={value!r}: expected seconds from 0")
    return value  # type: ignore[no-any-return]


_STATUS = {errno.ENOENT: 404, errno.EACCES: 403, errno.EPERM: 403}


def os_error(error: OSError) -> tuple[int, dict[str, Any]]:
    """Status and body of the answer for a failed system call."""
    path = error.filename
    if isinstance(path, str):
        path = path.encode("utf-8", "surrogateescape")
    body: dict[str, Any] = {
        "error": error.strerror or str(error),
        "errno": error.errno or errno.EIO,
        "path": pack(path) if isinstance(path, bytes) else "",
    }
    return _STATUS.get(body["errno"], 409), body
