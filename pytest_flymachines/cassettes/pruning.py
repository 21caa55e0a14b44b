"""What nobody needs any more in a directory of cassettes, and deleting it while others record."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from pytest_flymachines.cassettes.catalog import Catalog
from pytest_flymachines.cassettes.inventory import orphans
from pytest_flymachines.cassettes.locks import alone, temporaries
from pytest_flymachines.errors import CassetteError

__all__ = ["Needless", "delete", "left_over", "needless"]


class Needless(NamedTuple):
    """A file as it was when nobody needed it: what replaces it later is another."""

    path: Path
    inode: int
    changed_ns: int


def needless(directory: Path, rootdir: Path) -> dict[Needless, str]:
    """Files that nobody needs any more, and what to say of each.

    Args:
        directory: Of the cassettes.
        rootdir: The project's directory.

    Raises:
        CassetteError: That cannot be known: tests cannot be collected, or files not be read.
    """
    catalog = Catalog(directory)
    seen = {path: found for path in catalog.paths() if (found := _now(path))}
    entries = [catalog.glance(path) for path in seen]
    told = {
        seen[entry.path]: f"{entry.path}: orphan: nothing makes {entry.owner} any more"
        for entry in orphans(entries, rootdir)
    }
    return told | left_over(directory, {each.path for each in told})


def left_over(directory: Path, gone: Collection[Path] = ()) -> dict[Needless, str]:
    """Large bodies that no cassette needs, and what killed recordings have left half.

    Args:
        directory: Of the cassettes.
        gone: Cassettes that nobody needs.

    Raises:
        CassetteError: One of the others cannot be read.
    """
    try:
        with alone(directory):
            half = temporaries(directory)
    except OSError:
        half = []  # it is not known which of them are being written
    catalog = Catalog(directory)
    left = catalog.left_over(path for path in catalog.paths() if path not in gone)
    told = {now: f"{now.path}: left over: no cassette refers to it" for now in _all_now(left)}
    why = "left over: a recording that was killed has left it half"
    return told | {now: f"{now.path}: {why}" for now in _all_now(half)}


def delete(directory: Path, files: Iterable[Needless]) -> list[Path]:
    """Delete what nobody needed before and nobody needs now; the files that are deleted.

    Raises:
        CassetteError: It is not known any more what is needed; nothing is deleted then.
    """
    catalog = Catalog(directory)
    try:
        with alone(directory):
            same = {each.path for each in files if _now(each.path) == each}
            there = set(catalog.paths())
            left = {*catalog.left_over(there - same), *temporaries(directory)}
            deleted = sorted(path for path in same if path in there or path in left)
            for path in deleted:
                path.unlink(missing_ok=True)
                _remove_empty(path.parent, directory)
    except OSError as error:
        raise CassetteError(
            f"{directory}: {error}. What nobody needs is deleted only while no recording writes "
            "there, so the directory must be one that can be locked and changed"
        ) from error
    return deleted


def _all_now(paths: Iterable[Path]) -> list[Needless]:
    return [now for path in paths if (now := _now(path))]


def _now(path: Path) -> Needless | None:
    with suppress(OSError):
        found = path.lstat()
        return Needless(path, found.st_ino, found.st_mtime_ns)
    return None


def _remove_empty(folder: Path, top: Path) -> None:
    while folder != top and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
