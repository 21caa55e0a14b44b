"""What of this computer a machine sees, and how it can write on it.

Each system directory is an overlay: this computer's files below, the machine's own on top.
Between them lies a layer that is made once and shared:

- Run by an ordinary user, it has the system's directories again, owned by that user. The
  attributes of a merged directory are those of its topmost layer, so inside they belong to
  root, who can create, replace and remove in them. Without it they would belong to nobody.
- Run by root, it has a whiteout for everything that other users of this computer may not read.

/etc is a copy of what anybody may read. /var is new, but for the data of package managers.
Home directories, /run, /tmp, /srv's neighbours and whatever else is mounted do not appear.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Overlay", "SystemTree", "survey"]

_PROGRAMS = ("bin", "lib", "lib32", "lib64", "libx32", "sbin", "usr")
_DATA = ("opt", "srv")
_PACKAGE_DATA = (
    "cache/apt",
    "cache/debconf",
    "cache/dnf",
    "cache/pacman",
    "cache/zypp",
    "lib/alternatives",
    "lib/apk",
    "lib/apt",
    "lib/dnf",
    "lib/dpkg",
    "lib/emacsen-common",
    "lib/pacman",
    "lib/pam",
    "lib/rpm",
    "lib/sgml-base",
    "lib/ucf",
    "lib/xml-core",
    "lib/zypp",
)
_NEW_DIRECTORIES = {
    "home": 0o755,
    "media": 0o755,
    "mnt": 0o755,
    "root": 0o700,
    "run": 0o755,
    "run/lock": 0o1777,
    "tmp": 0o1777,
    "var": 0o755,
    "var/cache": 0o755,
    "var/lib": 0o755,
    "var/local": 0o755,
    "var/log": 0o755,
    "var/mail": 0o2775,
    "var/opt": 0o755,
    "var/spool": 0o755,
    "var/tmp": 0o1777,
}
_NEW_LINKS = {"var/lock": "/run/lock", "var/run": "/run"}


@dataclass(frozen=True)
class Overlay:
    """One overlay mount: `lower` on this computer, from the bottom up, seen at `path`."""

    path: str
    lower: tuple[Path, ...]


@dataclass(frozen=True)
class SystemTree:
    """How a machine's file system is put together.

    Attributes:
        overlays: To be mounted, parents before children.
        links: Symbolic links at the top level, by path.
        directories: Empty ones of the machine's own, with their modes, by path.
    """

    overlays: list[Overlay] = field(default_factory=list)
    links: dict[str, str] = field(default_factory=dict)
    directories: dict[str, int] = field(default_factory=dict)


def survey(layer: Path) -> SystemTree:
    """Look at this computer and make the shared layer.

    Args:
        layer: Directory to make it in; it must not exist.
    """
    tree = SystemTree(directories=dict(_NEW_DIRECTORIES), links=dict(_NEW_LINKS))
    mounts = _mount_points()
    layer.mkdir(parents=True)
    for name in _PROGRAMS + _DATA:
        path = Path("/", name)
        if path.is_symlink():
            tree.links[name] = str(path.readlink())
        elif path.is_dir():
            _add_overlays(tree, path, mounts, layer)
    for name in _PACKAGE_DATA:
        path = Path("/var", name)
        if path.is_dir() and not path.is_symlink():
            _add_overlays(tree, path, mounts, layer)
    make = _hide_unreadable if os.geteuid() == 0 else _own_directories
    for overlay in tree.overlays:
        source = Path(overlay.path)
        if os.geteuid() == 0 and source == Path("/usr"):
            # Packages keep nothing secret there, and looking through it takes long.
            source = source / "local"
        make(source, layer)
    _copy_etc(layer)
    tree.overlays.append(Overlay("/etc", (layer / "etc",)))
    return tree


def _add_overlays(tree: SystemTree, path: Path, mounts: set[Path], layer: Path) -> None:
    """An overlay for a directory, or for each of its parts, if something is mounted below it.

    The kernel refuses an ordinary user's overlay over a directory with mounts below it.
    """
    relative = str(path.relative_to("/"))
    if not any(path in mount.parents for mount in mounts):
        own = layer / relative
        tree.overlays.append(Overlay(str(path), (path, own)))
        own.mkdir(parents=True)
        _copy_attributes(path, own)
        return
    tree.directories[relative] = stat.S_IMODE(path.stat().st_mode)
    for child in sorted(path.iterdir()):
        if child.is_symlink():
            tree.links[str(child.relative_to("/"))] = str(child.readlink())
        elif child in mounts:
            tree.directories[str(child.relative_to("/"))] = 0o755
        elif child.is_dir() and os.access(child, os.R_OK | os.X_OK):
            _add_overlays(tree, child, mounts, layer)


def _own_directories(source: Path, layer: Path) -> None:
    """Make every directory below one again, as the user who runs us."""
    umask = os.umask(0)
    try:
        _mirror(str(source), f"{layer}{source}", locks=source.is_relative_to("/var"))
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


def _hide_unreadable(source: Path, layer: Path) -> None:
    """Put a whiteout, a character device 0:0, over everything that is not for everybody."""
    for path in _unreadable(source):
        target = layer / path.lstrip("/")
        _make_parents(Path(path).parent, layer)
        os.mknod(target, stat.S_IFCHR | 0o600, os.makedev(0, 0))


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
            elif not mode & stat.S_IROTH and stat.S_ISREG(mode):
                yield entry.path


def _make_parents(source: Path, layer: Path) -> None:
    target = layer / source.relative_to("/")
    if not target.exists():
        _make_parents(source.parent, layer)
        target.mkdir()
        _copy_attributes(source, target)


def _copy_etc(layer: Path) -> None:
    """Copy what anybody may read, and make up the files of passwords."""
    target = layer / "etc"
    _copy_readable(Path("/etc"), target)
    users = [line.split(":")[0] for line in _lines(target / "passwd")]
    groups = [line.split(":")[0] for line in _lines(target / "group")]
    _write(target / "shadow", "".join(f"{name}:*:19000:0:99999:7:::\n" for name in users), 0o640)
    _write(target / "gshadow", "".join(f"{name}:*::\n" for name in groups), 0o640)
    mtab = target / "mtab"
    mtab.unlink(missing_ok=True)
    mtab.symlink_to("/proc/self/mounts")


def _copy_readable(source: Path, target: Path) -> None:
    target.mkdir()
    _copy_attributes(source, target)
    with os.scandir(source) as entries:
        for entry in entries:
            copy = target / entry.name
            if entry.is_symlink():
                copy.symlink_to(Path(entry.path).readlink())
                continue
            mode = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode) and mode & 0o005 == 0o005:
                _copy_readable(Path(entry.path), copy)
            elif stat.S_ISREG(mode) and mode & stat.S_IROTH:
                shutil.copyfile(entry.path, copy)
                _copy_attributes(Path(entry.path), copy)


def _copy_attributes(source: Path, target: Path) -> None:
    status = source.stat()
    if os.geteuid() == 0:
        os.chown(target, status.st_uid, status.st_gid)
    target.chmod(stat.S_IMODE(status.st_mode) | stat.S_IWUSR)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _mount_points() -> set[Path]:
    lines = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape").splitlines()
    # Spaces and the like in a path are octal escapes there.
    paths = (line.split()[4].encode("utf-8", "surrogateescape") for line in lines)
    return {Path(os.fsdecode(path.decode("unicode_escape").encode("latin-1"))) for path in paths}


def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8", "surrogateescape").splitlines() if path.exists() else []


def _write(path: Path, content: str, mode: int) -> None:
    path.write_text(content, "utf-8", "surrogateescape")
    path.chmod(mode)
