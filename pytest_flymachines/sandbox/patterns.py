"""Glob patterns over paths inside a machine: `glob`, and what uploads and downloads leave out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

__all__ = ["excluded", "has_magic", "matches"]

_MAGIC = re.compile(r"[*?\[]")


def has_magic(part: str) -> bool:
    """Whether a part of a path is a pattern."""
    return bool(_MAGIC.search(part))


def matches(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    """Whether the parts of a relative path match those of a glob.

    Each pattern takes one part, by `fnmatchcase`; `**` takes any number of directories, also
    none, and as the last pattern everything below.
    """
    if not patterns:
        return not parts
    first, rest = patterns[0], patterns[1:]
    if first == "**":
        if not rest:
            return bool(parts)
        return any(matches(parts[n:], rest) for n in range(len(parts)))
    return bool(parts) and fnmatchcase(parts[0], first) and matches(parts[1:], rest)


def excluded(path: str, patterns: Sequence[str]) -> bool:
    """Whether a relative path, or a directory that it is in, is left out.

    A pattern without `/` is matched against each name on the way (`*.pyc`, `node_modules`); one
    with `/` against the path from the top (`build/*`, `/notes.txt`, `docs/**/*.png`).
    """
    parts = path.split("/")
    for pattern in patterns:
        wanted = [p for p in pattern.split("/") if p]
        if "/" in pattern.rstrip("/"):
            if any(matches(parts[:n], wanted) for n in range(1, len(parts) + 1)):
                return True
        elif any(matches([part], wanted) for part in parts):
            return True
    return False
