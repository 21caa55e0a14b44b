"""Walking a tree, by a glob's parts or whole."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator, Sequence


def walk(root: bytes, patterns: Sequence[bytes] | None) -> set[bytes]:
    """Names below `root`, relative to it, that match a glob given by its parts.

    Each part is matched with `fnmatchcase` against one part of the name; `**` is any number of
    directories, and at the end everything below. Symlinks are not followed. None takes all.

    Raises:
        OSError: `root` cannot be listed.
    """
    os.close(os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    return set(_match(root, b"", list(patterns) if patterns is not None else [b"**"]))


def _match(root: bytes, name: bytes, parts: list[bytes]) -> Iterator[bytes]:
    """Names below the directory `name` that match the parts, of which there is at least one."""
    part, rest = parts[0], parts[1:]
    if part == b"**":
        yield from _match_any_depth(root, name, rest)
        return
    wanted = re.compile(fnmatch.translate(os.fsdecode(part)))
    for entry in _entries(root, name):
        if wanted.match(os.fsdecode(entry.name)):
            path = os.path.join(name, entry.name)
            if not rest:
                yield path
            elif entry.is_dir(follow_symlinks=False):
                yield from _match(root, path, rest)


def _match_any_depth(root: bytes, name: bytes, rest: list[bytes]) -> Iterator[bytes]:
    pending = [name]
    while pending:
        directory = pending.pop()
        if rest:
            yield from _match(root, directory, rest)
        for entry in _entries(root, directory):
            path = os.path.join(directory, entry.name)
            if not rest:
                yield path
            if entry.is_dir(follow_symlinks=False):
                pending.append(path)


def _entries(root: bytes, name: bytes) -> list[os.DirEntry[bytes]]:
    """Entries of a directory; none of one that cannot be listed, or is gone."""
    try:
        with os.scandir(os.path.join(root, name)) as entries:
            return list(entries)
    except OSError:
        return []
