"""The thin layer between this computer's directories and a machine's own changes to them.

Run by an ordinary user, it has all the directories again, owned by that user. The attributes
of a merged directory are those of its topmost layer, so inside they belong to root, who can
create, replace and remove in them; without it they would belong to nobody. It takes seconds
to make, and is kept in the user's cache directory.

Run by root, it has a whiteout for everything that other users of this computer may not read.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = ["Held", "make"]

_FORMAT = "1"
_DEPTH = 2


class Held:
    """A lock on what is in use; closing it more than once does not matter."""

    def __init__(self, fd: int = -1) -> None:
        self._fd = fd

    def close(self) -> None:
        """Let others remove it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def make(sources: Sequence[Path], directory: Path) -> tuple[dict[Path, Path], Held]:
    """A thin layer for each of these directories.

    Args:
        sources: Directories of this computer.
        directory: Where to make them, if they are not to be kept; it must not exist.
    """
    if os.geteuid() == 0:
        directory.mkdir()
        for source in sources:
            _hide_unreadable(source, directory)
        return _places(sources, directory), Held()
    for cache in (_cache_directory(), directory):
        with contextlib.suppress(OSError):
            cache.mkdir(parents=True, exist_ok=True, mode=0o700)
            kept, held = _kept(sources, cache)
            return _places(sources, kept), held
    raise OSError(f"cannot make directories in {directory}")


def _places(sources: Sequence[Path], directory: Path) -> dict[Path, Path]:
    return {source: directory / source.relative_to("/") for source in sources}


def _kept(sources: Sequence[Path], cache: Path) -> tuple[Path, Held]:
    """The layer in the cache, made now if it is not there; older ones that nobody uses go."""
    directory = cache / f"directories-{_fingerprint(sources)}"
    fd = os.open(directory.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            fcntl.flock(fd, fcntl.LOCK_SH)
            if directory.exists():
                break
            fcntl.flock(fd, fcntl.LOCK_EX)
            if not directory.exists():
                _remove_unused(cache)
                _make_owned(sources, directory)
    except BaseException:
        os.close(fd)
        raise
    return directory, Held(fd)


def _make_owned(sources: Sequence[Path], directory: Path) -> None:
    new = directory.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    umask = os.umask(0)
    try:
        for source in sources:
            target = new / source.relative_to("/")
            target.mkdir(parents=True)
            target.chmod(stat.S_IMODE(source.stat().st_mode) | stat.S_IRWXU)
            _mirror(str(source), str(target), locks=source.is_relative_to("/var"))
    finally:
        os.umask(umask)
    new.rename(directory)


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


def _remove_unused(cache: Path) -> None:
    for lock in cache.glob("directories-*.lock"):
        fd = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
        try:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
        finally:
            os.close(fd)


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


def _cache_directory() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(home) / "pytest-flymachines"


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
