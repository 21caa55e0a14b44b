"""The thin layer between this computer's directories and a machine's own changes to them.

Run by an ordinary user, it has all the directories again, owned by that user. The attributes
of a merged directory are those of its topmost layer, so inside they belong to root, who can
create, replace and remove in them; without it they would belong to nobody. It takes seconds
to make, and is kept in the user's cache directory.

Run by root, it has a whiteout for everything that other users of this computer may not read.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from pytest_flymachines.emulator.engines.kept import Kept, keep

__all__ = ["make"]

_FORMAT = "1"
_DEPTH = 2


def make(sources: Sequence[Path], directory: Path) -> tuple[dict[Path, Path], list[Kept]]:
    """A thin layer for each of these directories.

    Args:
        sources: Directories of this computer.
        directory: For what is not shared with other processes.
    """
    kept: list[Kept] = []
    if os.geteuid() == 0:
        layers = directory / "whiteouts"
        layers.mkdir(parents=True)
        for source in sources:
            _hide_unreadable(source, layers)
    else:
        kept.append(
            keep(
                "directories",
                _fingerprint(sources),
                lambda new: _make_owned(sources, new),
                directory,
            )
        )
        layers = kept[0].path
    return {source: layers / source.relative_to("/") for source in sources}, kept


def _make_owned(sources: Sequence[Path], directory: Path) -> None:
    directory.mkdir(mode=0o700)
    umask = os.umask(0)
    try:
        for source in sources:
            target = directory / source.relative_to("/")
            target.mkdir(parents=True)
            target.chmod(stat.S_IMODE(source.stat().st_mode) | stat.S_IRWXU)
            _mirror(str(source), str(target), locks=source.is_relative_to("/var"))
    finally:
        os.umask(umask)


def _mirror(source: str, target: str, *, locks: bool) -> None:
    # Some 15,000 directories on a developer's computer: no pathlib here.
    with contextlib.suppress(PermissionError), os.scandir(source) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                mode = entry.stat(follow_symlinks=False).st_mode
                child = f"{target}/{entry.name}"
                os.mkdir(child, stat.S_IMODE(mode) | stat.S_IRWXU)  # noqa: PTH102
                _mirror(entry.path, child, locks=locks)
            elif locks and not os.access(entry.path, os.R_OK) and not entry.stat().st_size:
                # The locks of package managers: empty, and only root may open them.
                Path(target, entry.name).touch(mode=0o640)


def _fingerprint(sources: Sequence[Path]) -> str:
    """Changes when something is installed: whoever does makes directories near the top."""
    digest = hashlib.sha256(_FORMAT.encode())
    for source in sources:
        for path, changed in _changed(str(source), _DEPTH):
            digest.update(f"{path} {changed}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def _changed(directory: str, depth: int) -> Iterator[tuple[str, int]]:
    yield directory, os.stat(directory).st_mtime_ns  # noqa: PTH116
    names: list[str] = []
    if depth:
        with contextlib.suppress(PermissionError), os.scandir(directory) as entries:
            names = sorted(e.path for e in entries if e.is_dir(follow_symlinks=False))
    for name in names:
        yield from _changed(name, depth - 1)


def _hide_unreadable(source: Path, layer: Path) -> None:
    """Put a whiteout, a character device 0:0, over everything that is not for everybody."""
    _make_parents(source, layer)
    # Packages keep nothing secret in the rest of /usr, and looking through it takes long.
    for path in _unreadable(source / "local" if source == Path("/usr") else source):
        _make_parents(Path(path).parent, layer)
        os.mknod(layer / path.lstrip("/"), stat.S_IFCHR | 0o600, os.makedev(0, 0))


def _unreadable(directory: Path | str) -> Iterator[str]:
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_symlink():
                continue
            mode = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                if mode & 0o005 == 0o005:
                    yield from _unreadable(entry.path)
                else:
                    yield entry.path
            elif not mode & stat.S_IROTH:
                yield entry.path


def _make_parents(source: Path, layer: Path) -> None:
    target = layer / source.relative_to("/")
    if not target.exists():
        _make_parents(source.parent, layer)
        target.mkdir()
        status = source.stat()
        os.chown(target, status.st_uid, status.st_gid)
        target.chmod(stat.S_IMODE(status.st_mode))
