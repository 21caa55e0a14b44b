"""Tar streams for machines that have no tar, and on their way through gzip."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from pytest_flymachines.agent.server import pax
from pytest_flymachines.agent.server.pax import Member
from pytest_flymachines.sandbox.channel import FileInfo
from pytest_flymachines.sandbox.patterns import excluded
from pytest_flymachines.sandbox.runner import Runner, escape, quote
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
    for member, content in pax.members(tar):
        name = quote(b"./" + member.name)
        if member.kind == pax.DIRECTORY:
            directories.append((name, member))
            yield b"mkdir -p -- %s || exit 1\n" % name
        elif member.kind == pax.SYMLINK:
            yield b"ln -s -- %s %s || exit 1\n" % (quote(member.target), name)
        elif member.kind == pax.HARD_LINK:
            yield b"ln -- %s %s || exit 1\n" % (quote(b"./" + member.target), name)
        elif member.kind == pax.FIFO:
            yield b"mkfifo -m %o %s || exit 1\n" % (member.mode, name)
        elif member.kind == pax.FILE:
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


def _attributes(name: bytes, member: Member) -> bytes:
    seconds = member.mtime_ns // 10**9
    return b"chmod %o %s && touch -d @%d -- %s || exit 1\n" % (member.mode, name, seconds, name)


def archive(files: ApiFiles, path: bytes, exclude: Sequence[str]) -> Iterator[bytes]:
    """A directory, or a single file, as a tar stream that is made here from single reads."""
    top = files.stat(path)
    if top.kind != "directory":
        yield from _entry(files, path, top, encode_text(top.name))
    else:
        yield from _entry(files, path, top, b".")
        for info in files.walk(path):
            if not excluded(info.name, exclude):
                name = encode_text(info.name)
                yield from _entry(files, path + b"/" + name, info, name)
    yield pax.END


_KINDS = {"directory": pax.DIRECTORY, "symlink": pax.SYMLINK, "fifo": pax.FIFO}


def _entry(files: ApiFiles, path: bytes, info: FileInfo, name: bytes) -> Iterator[bytes]:
    mtime_ns = round(info.mtime * 10**9)
    if kind := _KINDS.get(info.kind):
        target = encode_text(info.target or "")
        yield pax.header(Member(name, kind, info.mode, 0, mtime_ns, target))
    elif info.kind == "file":
        content = b"".join(files.read(path))
        yield pax.header(Member(name, pax.FILE, info.mode, len(content), mtime_ns))
        yield content
        yield pax.padding(len(content))
