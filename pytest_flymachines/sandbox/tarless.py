"""Tar streams for machines that have no tar, and on their way through gzip."""

from __future__ import annotations

import base64
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from pytest_flymachines.sandbox.channel import FileInfo
from pytest_flymachines.sandbox.patterns import excluded
from pytest_flymachines.sandbox.runner import Runner, escape, quote
from pytest_flymachines.sandbox.tar import END, header, members, padding
from pytest_flymachines.sandbox.text import encode_text

if TYPE_CHECKING:
    from pytest_flymachines.sandbox.api_files import ApiFiles

__all__ = ["archive", "compressed", "expanded", "script"]

_CHUNK_BYTES = 3 * 1024
_GZIP = 31  # zlib's word for a gzip stream


def compressed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """A stream through gzip, the same for the same bytes."""
    packer = zlib.compressobj(6, zlib.DEFLATED, _GZIP)
    for piece in pieces:
        if packed := packer.compress(piece):
            yield packed
    yield packer.flush()


def expanded(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The inverse of `compressed`."""
    unpacker = zlib.decompressobj(_GZIP)
    for piece in pieces:
        yield unpacker.decompress(piece)
    yield unpacker.flush()


def script(tar: Iterable[bytes], runner: Runner) -> Iterator[bytes]:
    """Shell text that makes in the current directory what a tar stream holds."""
    directories = []
    for member, content in members(tar):
        name = quote(b"./" + encode_text(member.name))
        if member.isdir():
            directories.append((name, member))
            yield b"mkdir -p -- %s || exit 1\n" % name
        elif member.issym():
            yield b"ln -s -- %s %s || exit 1\n" % (quote(encode_text(member.linkname)), name)
        elif member.isfifo():
            yield b"mkfifo -m %o %s || exit 1\n" % (member.mode, name)
        elif member.isreg():
            yield b": >%s || exit 1\n" % name
            for piece in content:
                yield _appended(piece, name, runner)
            yield _attributes(name, member)
    for name, member in reversed(directories):
        yield _attributes(name, member)


def _appended(piece: bytes, name: bytes, runner: Runner) -> bytes:
    lines = []
    for start in range(0, len(piece), _CHUNK_BYTES):
        chunk = piece[start : start + _CHUNK_BYTES]
        if "b" in runner.tools:
            lines.append(b"echo %s|base64 -d" % base64.b64encode(chunk))
        else:
            lines.append(b"printf %%b %s" % quote(escape(chunk).encode()))
    return b"{ %s; } >>%s || exit 1\n" % (b"; ".join(lines), name) if lines else b""


def _attributes(name: bytes, member: tarfile.TarInfo) -> bytes:
    return b"chmod %o %s && touch -d @%d -- %s || exit 1\n" % (
        member.mode & 0o7777,
        name,
        int(member.mtime),
        name,
    )


def archive(files: ApiFiles, path: bytes, exclude: Sequence[str]) -> Iterator[bytes]:
    """A directory, or a single file, as a tar stream that is made here from single reads."""
    top = files.stat(path)
    if top.kind != "directory":
        yield from _entry(files, path, top, top.name)
    else:
        yield from _entry(files, path, top, ".")
        for info in files.walk(path):
            if not excluded(info.name, exclude):
                yield from _entry(files, path + b"/" + encode_text(info.name), info, info.name)
    yield END


_TYPES = {"directory": tarfile.DIRTYPE, "symlink": tarfile.SYMTYPE, "fifo": tarfile.FIFOTYPE}


def _entry(files: ApiFiles, path: bytes, info: FileInfo, name: str) -> Iterator[bytes]:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.mtime, entry.uid, entry.gid = info.mode, info.mtime, info.uid, info.gid
    if info.kind in _TYPES:
        entry.type = _TYPES[info.kind]
        entry.linkname = info.target or ""
        yield header(entry)
    elif info.kind == "file":
        content = b"".join(files.read(path))
        entry.size = len(content)
        yield header(entry)
        yield content
        yield padding(entry.size)
