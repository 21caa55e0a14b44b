"""The base of every machine's `/`: a copy of /etc without secrets, and new directories."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["ANCHOR", "Plan", "fingerprint", "make_base"]

ANCHOR = "/.fly/init"
"""Where the anchor process of a machine is to be found inside."""

_FORMAT = "2"
_COPIED = (
    "/etc",
    "/var/cache/debconf",
    "/var/lib/alternatives",
    "/var/lib/emacsen-common",
    "/var/lib/pam",
    "/var/lib/sgml-base",
    "/var/lib/ucf",
    "/var/lib/xml-core",
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
class Plan:
    """What of this computer is to be seen.

    Attributes:
        shown: Directories, by an overlay each.
        places: Directories that are needed for that, parents first.
        links: Symbolic links, target by path.
    """

    shown: list[Path] = field(default_factory=list)
    places: list[Path] = field(default_factory=list)
    links: dict[Path, str] = field(default_factory=dict)


def fingerprint(plan: Plan) -> str:
    """Of everything that the base depends on."""
    digest = hashlib.sha256(f"{_FORMAT} {plan}".encode(errors="surrogateescape"))
    for directory in _COPIED:
        for path, status in _readable(directory):
            line = f"{path} {status.st_mode} {status.st_size} {status.st_mtime_ns}\n"
            digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def make_base(base: Path, plan: Plan) -> None:
    """Make it at a path that does not exist yet."""
    base.mkdir(mode=0o755)
    for name, mode in _NEW_DIRECTORIES.items():
        (base / name).mkdir(parents=True)
        (base / name).chmod(mode)
    for name, target in _NEW_LINKS.items():
        (base / name).symlink_to(target)
    (base / ANCHOR.lstrip("/")).touch()
    for path in plan.places:
        place = _below(base, path)
        place.mkdir(parents=True, exist_ok=True)
        _copy_attributes(path, place)
    for path, target in plan.links.items():
        _below(base, path).symlink_to(target)
    for directory in _COPIED:
        _copy(directory, base)
    _make_up_passwords(base / "etc")
    mtab = base / "etc/mtab"
    mtab.unlink(missing_ok=True)
    mtab.symlink_to("/proc/self/mounts")


def _readable(directory: str) -> Iterator[tuple[str, os.stat_result]]:
    """What anybody may read: a directory, and everything below it; parents first."""
    try:
        status = os.stat(directory)  # noqa: PTH116 (thousands of these)
        entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
    except OSError:
        return
    if status.st_mode & 0o005 != 0o005:
        return
    yield directory, status
    for entry in entries:
        status = entry.stat(follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            yield from _readable(entry.path)
        elif stat.S_ISLNK(status.st_mode) or status.st_mode & stat.S_IROTH:
            yield entry.path, status


def _copy(directory: str, base: Path) -> None:
    for name, status in _readable(directory):
        path, copy = Path(name), _below(base, Path(name))
        if stat.S_ISLNK(status.st_mode):
            copy.symlink_to(path.readlink())
        elif stat.S_ISDIR(status.st_mode):
            copy.mkdir(parents=True)
            _copy_attributes(path, copy)
        elif stat.S_ISREG(status.st_mode):
            shutil.copyfile(path, copy)
            _copy_attributes(path, copy)


def _make_up_passwords(etc: Path) -> None:
    """Files that tools for users and `su` want to see; nobody has a password."""
    for table, rest in (("passwd", "*:19000:0:99999:7:::"), ("group", "*::")):
        path = etc / table
        if path.exists():
            lines = path.read_text("utf-8", "surrogateescape").splitlines()
            made = "".join(f"{line.split(':')[0]}:{rest}\n" for line in lines)
            shadow = etc / {"passwd": "shadow", "group": "gshadow"}[table]
            shadow.write_text(made, "utf-8", "surrogateescape")
            shadow.chmod(0o640)


def _copy_attributes(source: Path, target: Path) -> None:
    status = source.stat()
    if os.geteuid() == 0:
        os.chown(target, status.st_uid, status.st_gid)
    target.chmod(stat.S_IMODE(status.st_mode) | stat.S_IWUSR)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _below(base: Path, path: Path) -> Path:
    return base / path.relative_to("/")
