"""What of this computer a machine sees, and how it can write on it.

A machine's `/` is an overlay over a base that is made once for all machines: a copy of what
anybody may read in /etc, and new, empty directories. On it, more overlays show this computer's
programs (/usr), what it has installed besides (/opt, /srv), and the data of its package
managers. Home directories, /run, /tmp, the rest of /var, and whatever else is mounted on this
computer do not appear.

Between this computer's files and the machine's own lies a thin layer; see `thin`.
"""

from __future__ import annotations

import os
import shutil
import stat
from dataclasses import dataclass, field
from pathlib import Path

from pytest_flymachines.emulator.engines import thin

__all__ = ["ANCHOR", "Overlay", "SystemTree", "survey"]

ANCHOR = "/.fly/init"
"""Where the anchor process of a machine is to be found inside."""

_SYSTEM = ("bin", "lib", "lib32", "lib64", "libx32", "sbin", "usr", "opt", "srv")
_LARGE_PACKAGE_DATA = ("lib/apk", "lib/apt", "lib/dnf", "lib/dpkg", "lib/pacman", "lib/rpm")
_SMALL_PACKAGE_DATA = (
    "cache/debconf",
    "lib/alternatives",
    "lib/emacsen-common",
    "lib/pam",
    "lib/sgml-base",
    "lib/ucf",
    "lib/xml-core",
)
_NEW_DIRECTORIES = {
    ".fly": 0o755,
    "dev": 0o755,
    "home": 0o755,
    "media": 0o755,
    "mnt": 0o755,
    "proc": 0o555,
    "root": 0o700,
    "run": 0o755,
    "run/lock": 0o1777,
    "sys": 0o555,
    "tmp": 0o1777,
    "var/cache/apt/archives/partial": 0o755,
    "var/lib": 0o755,
    "var/local": 0o755,
    "var/log/apt": 0o755,
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
        overlays: To be mounted in this order; the first is `/`.
        held: Keeps what is shared with other processes from being removed, until closed.
    """

    overlays: list[Overlay]
    held: thin.Held = field(default_factory=thin.Held)


def survey(directory: Path) -> SystemTree:
    """Look at this computer, and make the base and the thin layers.

    Args:
        directory: For what is not shared with other processes; it must not exist.
    """
    base = directory / "base"
    base.mkdir(parents=True)
    base.chmod(0o755)
    for path, mode in _NEW_DIRECTORIES.items():
        (base / path).mkdir(parents=True)
        (base / path).chmod(mode)
    for path, target in _NEW_LINKS.items():
        (base / path).symlink_to(target)
    (base / ANCHOR.lstrip("/")).touch()
    _copy_etc(base / "etc")
    for name in _SMALL_PACKAGE_DATA:
        if Path("/var", name).is_dir():
            (base / "var" / name).parent.mkdir(parents=True, exist_ok=True)
            _copy_readable(Path("/var", name), base / "var" / name)
    sources: list[Path] = []
    mounts = _mount_points()
    system = [Path("/", name) for name in _SYSTEM]
    for source in [*system, *(Path("/var", name) for name in _LARGE_PACKAGE_DATA)]:
        if source.is_symlink() or source.is_dir():
            _find_sources(source, base, mounts, sources)
    layers, held = thin.make(sources, directory / "thin")
    overlays = [Overlay(str(source), (source, layers[source])) for source in sources]
    return SystemTree([Overlay("/", (base,)), *overlays], held)


def _find_sources(path: Path, base: Path, mounts: set[Path], sources: list[Path]) -> None:
    """Find what an overlay can show: a directory, or each of its parts if one has a mount below.

    The kernel refuses an ordinary user's overlay over a directory with mounts below it.
    """
    place = base / path.relative_to("/")
    if path.is_symlink():
        place.symlink_to(path.readlink())
        return
    if not path.is_dir() or not os.access(path, os.R_OK | os.X_OK):
        return
    place.mkdir(parents=True, exist_ok=True)
    copy_attributes(path, place)
    if not any(path in mount.parents for mount in mounts):
        if any(path.iterdir()):
            sources.append(path)
        return
    for child in sorted(path.iterdir()):
        if child not in mounts:
            _find_sources(child, base, mounts, sources)


def _copy_etc(target: Path) -> None:
    """Copy what anybody may read, and make up the files of passwords."""
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
                copy_attributes(Path(entry.path), copy)
    copy_attributes(source, target)


def copy_attributes(source: Path, target: Path) -> None:
    """Owner (if we are root), mode and times."""
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
