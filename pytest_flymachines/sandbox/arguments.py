"""What users hand in beside text and bytes; whatever cannot be is refused before anything is sent.

Each refusal names the argument, its value, and what is accepted: a `TypeError` for another type, a
`ValueError` for a value that cannot be.
"""

from __future__ import annotations

import codecs
import io
import math
import operator
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath, PurePosixPath
from typing import SupportsIndex

from pytest_flymachines.sandbox.text import encode_data, encode_text

__all__ = [
    "check_errors",
    "check_glob",
    "check_mode",
    "check_patterns",
    "check_port",
    "check_seconds",
    "check_text_encoding",
    "check_user",
    "compiled",
    "file_pieces",
    "local_path",
    "whole_number",
]


def whole_number(name: str, value: SupportsIndex, accepted: str, low: int, high: float) -> int:
    """A number from `low` to `high`; a bool is none."""
    wrong = f"{name}={value!r}: expected {accepted}"
    if isinstance(value, bool):
        raise TypeError(wrong)
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(wrong) from None
    if not low <= number <= high:
        raise ValueError(wrong)
    return number


def check_port(port: int) -> int:
    """A TCP port."""
    return whole_number("port", port, "a number from 1 to 65535", 1, 65535)


def check_mode(mode: int) -> int:
    """Permission bits; `None` is not for this to decide."""
    return whole_number("mode", mode, "permission bits from 0 to 0o7777, such as 0o644", 0, 0o7777)


def check_seconds(name: str, value: float, *, above_0: bool = False, none: str = "") -> None:
    """Seconds that have an end.

    Args:
        name: Of the argument.
        value: What it was.
        above_0: Whether 0 is too short.
        none: What `None` means, where that is accepted, too; checked by the caller.
    """
    accepted = f"seconds{' above 0' if above_0 else ', 0 or more'}{none and f', or None {none}'}"
    wrong = f"{name}={value!r}: expected {accepted}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(wrong)
    if not 0 <= value < math.inf or (above_0 and value == 0):
        raise ValueError(wrong)


def check_user(user: str | int | None) -> str | None:
    """Name or number of a user of the machine, as text."""
    if user is None:
        return None
    wrong = f"user={user!r}: expected the name or number of a user of the machine"
    if isinstance(user, bool) or not isinstance(user, str | int):
        raise TypeError(wrong)
    name = str(user)
    if not name or "\0" in name or ":" in name or "\n" in name or name.startswith("-"):
        raise ValueError(wrong)
    encode_text(name)
    return name


def compiled(pattern: str | re.Pattern[str], flags: int = 0) -> re.Pattern[str]:
    """A regular expression over text; `flags` for one that is not compiled yet."""
    text = pattern.pattern if isinstance(pattern, re.Pattern) else pattern
    if not isinstance(text, str):
        raise TypeError(f"pattern={pattern!r}: expected a regular expression over text, as str")
    if isinstance(pattern, re.Pattern):
        return pattern
    try:
        return re.compile(pattern, flags)
    except re.error as error:
        raise ValueError(
            f"pattern={pattern!r} is no regular expression ({error}); re.escape() makes one of "
            "text that is meant as it is"
        ) from None


def check_errors(errors: str) -> None:
    """What to do with bytes that are not in an encoding, as in `bytes.decode`."""
    accepted = "strict, ignore, replace, backslashreplace or surrogateescape, as in bytes.decode"
    if not isinstance(errors, str):
        raise TypeError(f"errors={errors!r}: expected {accepted}")
    try:
        codecs.lookup_error(errors)
    except (LookupError, ValueError):
        raise LookupError(f"errors={errors!r}: expected {accepted}") from None


def check_text_encoding(encoding: str) -> None:
    """Name of an encoding of text."""
    accepted = "an encoding of text that Python knows, such as utf-8 or latin-1"
    if not isinstance(encoding, str):
        raise TypeError(f"encoding={encoding!r}: expected {accepted}")
    try:  # which knows encodings of text from others
        io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    except (LookupError, ValueError):
        raise LookupError(f"encoding={encoding!r}: expected {accepted}") from None


def check_patterns(exclude: Sequence[str]) -> None:
    """A list of patterns; of a `str` each character would be one."""
    wrong = f"exclude={exclude!r}: expected a list of patterns, such as ['*.pyc', 'build/*']"
    if isinstance(exclude, str | bytes) or not isinstance(exclude, Sequence):
        raise TypeError(wrong)
    if not all(isinstance(pattern, str) for pattern in exclude):
        raise TypeError(wrong)


def check_glob(pattern: str) -> str:
    """A pattern below a directory."""
    wrong = f"pattern={pattern!r} is no relative pattern: expected such as '**/*.py'"
    if not isinstance(pattern, str | PurePath):
        raise TypeError(wrong)
    parts = PurePosixPath(pattern).parts
    if not parts or parts[0] == "/" or "\0" in str(pattern):
        raise ValueError(wrong)
    encode_text(pattern)
    return str(pattern)


def local_path(local: str | os.PathLike[str]) -> Path:
    """A path of this computer."""
    wrong = f"local={local!r}: expected a path of this computer, as str or pathlib.Path"
    text = os.fspath(local) if isinstance(local, str | os.PathLike) else None
    if not isinstance(text, str):
        raise TypeError(wrong)
    if not text or "\0" in text:
        raise ValueError(wrong)
    return Path(text)


def file_pieces(
    data: bytes | bytearray | memoryview | str | Iterable[bytes],
) -> Iterable[bytes]:
    """Content of a file in pieces.

    A list is looked through at once; what is made on the way is looked at then, and nothing is
    left behind of a file that a wrong piece ends.
    """
    if isinstance(data, bytes | bytearray | memoryview | str):
        return [encode_data(data)]
    if isinstance(data, Mapping) or not isinstance(data, Iterable):
        raise TypeError(f"data={data!r}: expected text, bytes or pieces of bytes")
    if isinstance(data, Sequence):
        return list(map(_piece, data))
    return map(_piece, data) if iter(data) is data else _Pieces(data)


class _Pieces:
    """Pieces that can be asked for again."""

    def __init__(self, data: Iterable[bytes]) -> None:
        self._data = data

    def __iter__(self) -> map[bytes]:
        return map(_piece, self._data)


def _piece(piece: object) -> bytes:
    if not isinstance(piece, bytes | bytearray | memoryview):
        raise TypeError(
            f"data has {piece!r} for a piece: expected text, bytes or pieces of bytes "
            "(bytes(numbers) makes them of a list of numbers)"
        )
    return bytes(piece)
