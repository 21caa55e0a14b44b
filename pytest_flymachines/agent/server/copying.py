"""Fast copies of directories: clones where the file system has them, else overlays, else copies."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from contextlib import suppress

from .names import new_directory, new_file
from .wire import Refused

FICLONE = 0x40049409  # ioctl_ficlone(2)


def can_clone(directory: bytes) -> bool:
    """Whether files in a directory can share their blocks (btrfs, XFS, bcachefs, not ext4)."""
    descriptors = []
    try:
        for _ in range(2):
            fd, path = new_file(directory)
            descriptors.append(fd)
            os.unlink(path)
        os.write(descriptors[0], b"x")
        fcntl.ioctl(descriptors[1], FICLONE, descriptors[0])
    except OSError:
        return False
    else:
        return True
    finally:
        for fd in descriptors:
            os.close(fd)


def copy_tree(source: bytes, target: bytes) -> None:
    """Copy the content of a directory into another, with everything that `cp -a` keeps.

    Raises:
        Refused: It failed, for instance because the disk is full.
    """
    outcome = _run(b"cp", b"-a", b"--reflink=auto", source + b"/.", target)
    if outcome.returncode and b"reflink" in outcome.stderr:  # busybox
        outcome = _run(b"cp", b"-a", source + b"/.", target)
    if outcome.returncode:
        text = outcome.stderr.decode("utf-8", "replace").strip()
        raise Refused(f"cp -a {os.fsdecode(source)} {os.fsdecode(target)}: {text}")


def mount_overlay(lower: bytes, upper: bytes, work: bytes, target: bytes) -> bool:
    """Show `lower` at `target`, changes going to `upper`; false where that is not permitted."""
    if any(char in lower + upper + work for char in b",:\\"):
        return False
    status = os.stat(lower)
    os.chmod(upper, status.st_mode & 0o7777)
    with suppress(PermissionError):
        os.chown(upper, status.st_uid, status.st_gid)
    options = b"lowerdir=%b,upperdir=%b,workdir=%b" % (lower, upper, work)
    # userxattr is what user namespaces need (Linux 5.11)
    return any(
        not _run(b"mount", b"-t", b"overlay", b"overlay", b"-o", tried, target).returncode
        for tried in (options, options + b",userxattr")
    )


def unmount(target: bytes) -> None:
    """Take an overlay away, also when a process still has its directory open."""
    if os.path.ismount(target):
        _run(b"umount", b"-l", target)


def replace_content(target: bytes, source: bytes) -> None:
    """Make the content of `target` a copy of that of `source`; the directory itself stays.

    The copy is made first, so a full disk changes nothing.
    """
    stage = new_directory(os.path.dirname(os.path.realpath(target)))
    try:
        fresh, old = os.path.join(stage, b"fresh"), os.path.join(stage, b"old")
        os.mkdir(fresh)
        os.mkdir(old)
        copy_tree(source, fresh)
        _move_entries(target, old)
        _move_entries(fresh, target)
        shutil.copystat(source, target)
    finally:
        shutil.rmtree(stage)


def _move_entries(source: bytes, target: bytes) -> None:
    for name in os.listdir(source):
        old, new = (os.fsdecode(os.path.join(place, name)) for place in (source, target))
        shutil.move(old, new)


def _run(*argv: bytes) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(argv, capture_output=True, check=False)
    except FileNotFoundError as error:
        return subprocess.CompletedProcess(argv, 127, b"", str(error).encode())
