"""An image made of this computer's programs, so that a container has what other machines have."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

__all__ = ["root_file_system"]

_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
# Those that tests of machines run; what this computer lacks, the image lacks too.
_PROGRAMS = """
[ awk base64 basename bash cat chgrp chmod chown cmp cp cut date dash dd df diff dirname du echo
env expr false find fold getent grep groups gzip head hostname id kill less ln ls mkdir mkfifo
mknod mktemp more mount mv nl nohup nproc od paste pgrep pkill printenv printf ps pwd readlink
realpath redis-server rev rm rmdir script sed seq setpriv setsid sh sha256sum sleep sort split
stat stdbuf stty sync tac tail tar tee test timeout top touch tr true truncate tty umount uname
uniq unlink vi wc which whoami xargs yes
"""
_FILES = ("/etc/passwd", "/etc/group", "/etc/nsswitch.conf")
_TERMINALS = ("/lib/terminfo", "/usr/share/terminfo", "/etc/terminfo")
# Parts of Python's library that no test needs, and that are most of its size.
_LEFT_OUT = re.compile(
    r"/(test|tests|idlelib|tkinter|turtledemo|ensurepip|lib2to3|pydoc_data|(site|dist)-packages"
    r"|config-[^/]*|__pycache__/pydoc.*)(/|$)|\.opt-[12]\.pyc$|\.a$|/lib-dynload/(_tk|_test|_ctypes_t|xx)"
)


def root_file_system() -> bytes:
    """As a tar archive: shell, common programs, Python, what they need, and this user list."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        packer = _Packer(tar)
        for name in ("bin", "lib", "lib64", "sbin"):
            if Path("/", name).is_symlink():
                packer.link(f"/{name}", f"usr/{name}")
        programs = [p for name in _PROGRAMS.split() if (p := shutil.which(name, path=_PATH))]
        python = str(Path(sys.executable).resolve())
        for path in (*programs, python, *_FILES):
            packer.add(path)
        extensions = []
        for entry in sorted(Path(sysconfig.get_path("stdlib")).resolve().rglob("*")):
            if entry.is_file() and not _LEFT_OUT.search(str(entry)):
                packer.add(str(entry))
                extensions += [str(entry)] if entry.suffix == ".so" else []
        for library in _libraries([*programs, python, *extensions]):
            packer.add(library)
        if python != "/usr/bin/python3":
            packer.link("/usr/bin/python3", python)
        for directory in _TERMINALS:
            if (entry := Path(directory, "x/xterm-256color")).exists():
                packer.add(str(entry))
        for name, mode in (("tmp", 0o1777), ("root", 0o700), ("var/tmp", 0o1777)):
            packer.directory(name, mode)
        packer.empty_file("root/.vimrc")  # without one vim would want its library
    return buffer.getvalue()


def _libraries(programs: list[str]) -> set[str]:
    """What the dynamic linker loads for them; of no use for static ones, which ldd refuses."""
    said = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=False).stdout
    return set(re.findall(r"(?:=> |^\t)(/\S+) \(0x", said, re.MULTILINE))


class _Packer:
    """Adds files with the symlinks on the way to them, each once."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._seen: set[str] = set()

    def add(self, path: str) -> None:
        directory, name = os.path.split(path)
        path = os.path.join(os.path.realpath(directory), name)  # noqa: PTH118
        if path in self._seen or not os.path.lexists(path):
            return
        self._seen.add(path)
        self._tar.add(path, path.lstrip("/"), recursive=False)
        if os.path.islink(path):  # noqa: PTH114
            self.add(os.path.join(os.path.dirname(path), os.readlink(path)))  # noqa: PTH115,PTH118,PTH120

    def link(self, path: str, target: str) -> None:
        if path not in self._seen:
            self._seen.add(path)
            member = tarfile.TarInfo(path.lstrip("/"))
            member.type, member.linkname = tarfile.SYMTYPE, target
            self._tar.addfile(member)

    def empty_file(self, name: str) -> None:
        self._tar.addfile(tarfile.TarInfo(name))

    def directory(self, name: str, mode: int) -> None:
        member = tarfile.TarInfo(name)
        member.type, member.mode = tarfile.DIRTYPE, mode
        self._tar.addfile(member)
