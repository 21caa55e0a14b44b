"""Taking secrets out of what is recorded, however they are written, and finding what is left.

A placeholder is exactly as long as what it replaces. So sizes and offsets in answers, tar
archives and base64 stay true, and a replayed client that relies on them works on.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain

from pytest_flymachines.cassettes.dumps import dumps, uuencoded
from pytest_flymachines.cassettes.escapes import regions, unescaped
from pytest_flymachines.cassettes.known import URL, Known
from pytest_flymachines.cassettes.members import GZIP_MEMBER, Member, Packer, members, present
from pytest_flymachines.cassettes.packing import expanded, packed_again, tidied, unpacked
from pytest_flymachines.cassettes.runs import (
    aligned,
    bare,
    decodings,
    has_row,
    recoded,
    runs,
    unhexed,
    with_gaps,
)
from pytest_flymachines.cassettes.spelling import PLACEHOLDER, placeholder
from pytest_flymachines.cassettes.spread import squeezed
from pytest_flymachines.cassettes.texts import BETWEEN, text_in

__all__ = ["DEPTH", "Scrubber"]

#: How often it is looked into what is found in something.
DEPTH = 4
# requests go to few addresses, again and again
_REMEMBERED = 200
_REMEMBERED_STREAMS = 10_000
# of what is too large to be held: so much is looked through at a time, and so much of it again
_WINDOW_BYTES = 2 << 20
_OVERLAP_BYTES = 32 << 10
# what words of a text encode is looked through together, with `BETWEEN` between them
_SMALL_BYTES = 4096

_HEADER = re.compile(
    rb"(authorization(?:\\?[\"'])?\s*[:=]\s*(?:\\?[\"'])?(?:bearer|basic|flyv1|token)\s+)"
    rb"(?=[^\s\"']*[0-9=_+/]|[^\s\"']+(?-i:[A-Z]))([^\s\"'\\<>*]{8,})",
    re.IGNORECASE,
)


class Scrubber(Known):
    """Takes the secrets of a run out, and finds them."""

    def __init__(
        self,
        named: Iterable[str] = (),
        environ: Mapping[str, str] | None = None,
        *,
        lenient: bool = False,
    ) -> None:
        """As `Known`."""
        self._clean_texts: dict[str, str] = {}
        self._clean_streams: set[bytes] = set()
        super().__init__(named, environ, lenient=lenient)

    def data(self, data: bytes, depth: int = DEPTH) -> bytes:
        """Bytes without secrets; the same object when there is none."""
        if not self.find(data, depth):
            return data
        if depth:
            if (plain := unpacked(data)) is not None:
                clean = self.data(plain, depth - 1)
                return data if clean is plain else packed_again(clean, data) or data
            data = self._clean_members(data, depth)
            data = self._clean_dumps(data, depth)
            data = _changed(data, runs(data), lambda run: self._clean_run(run, depth))
            where = regions(data, self._margin)
            data = _changed(data, where, self._clean_escaped)
        data = URL.sub(_without_credentials, data)
        data = _HEADER.sub(lambda m: m[1] + placeholder("Authorization", len(m[2])), data)
        for secret in self._secrets():
            data = secret.without_spread(secret.without(data))
        return tidied(data)

    def text(self, text: str) -> str:
        """Text without secrets; the same object when there is none."""
        known = self._clean_texts.get(text)
        if known is None:
            data = text.encode("utf-8", "surrogateescape")
            clean = self.data(data)
            known = text if clean is data else clean.decode("utf-8", "surrogateescape")
            if len(self._clean_texts) < _REMEMBERED:
                self._clean_texts[text] = known
        return known

    def _is_new(self) -> None:
        self._clean_texts.clear()
        self._clean_streams.clear()

    def find(self, data: bytes, depth: int = DEPTH) -> set[str]:
        """Names of the secrets that stand in `data`, plain or encoded."""
        found: set[str] = set()
        self._find(data, depth, found)
        return found

    def scan(self, chunks: Iterable[bytes]) -> set[str]:
        """Names of the secrets that stand in a stream, which is never held as a whole.

        What can be read again, and was found to be clean, is not looked through again.
        """
        digest = b""
        if not isinstance(chunks, Iterator):
            seen = hashlib.sha256()
            for chunk in chunks:
                seen.update(chunk)
            if (digest := seen.digest()) in self._clean_streams:
                return set()
        found: set[str] = set()
        self._scan(iter(chunks), DEPTH, found)
        if digest and not found and len(self._clean_streams) < _REMEMBERED_STREAMS:
            self._clean_streams.add(digest)
        return found

    def _scan(self, chunks: Iterator[bytes], depth: int, found: set[str]) -> None:
        held, wanted = b"", _WINDOW_BYTES
        first = True
        for chunk in chunks:
            held += chunk
            if len(held) < wanted:
                continue
            if first and depth and GZIP_MEMBER.match(held):
                self._scan(expanded(chain([held], chunks)), depth - 1, found)
                return
            first = False
            unfinished = self._find(held, depth, found)
            held = held[min(unfinished, len(held) - _OVERLAP_BYTES) :]
            wanted = max(_WINDOW_BYTES, 2 * len(held))
        self._find(held, depth, found)

    def _find(self, data: bytes, depth: int, found: set[str], *, escaped: bool = True) -> int:
        """Note what stands in `data`; where something packed begins that goes on after it.

        Args:
            data: What to look through.
            depth: How often to look into what is found in it.
            found: The names so far.
            escaped: Characters may be escaped; not in what was read back, however often.
        """
        if secrets := self._secrets():
            tight = squeezed(data)
            small = tight.lower()
            for secret in secrets:
                spread = secret.spread
                if secret.in_text(data) or (spread.may_be(tight, small) and spread.found(data)):
                    found.add(secret.name)
        if (b"uthorization" in data or b"UTHORIZATION" in data) and _HEADER.search(data):
            found.add("Authorization")
        if b"://" in data and any(_is_credential(m[1]) for m in URL.finditer(data)):
            found.add("credentials in a URL")
        if not depth:
            return len(data)
        if (plain := unpacked(data)) is not None:
            self._find(plain, depth - 1, found)
        packers = present(data)
        text = text_in(data, packers, self._bytes, self._shortest)
        for start, end in regions(text, self._margin) if escaped else ():
            for plain in unescaped(text[start:end]):
                self._find(plain, depth - 1, found, escaped=False)
        for dump in dumps(data):
            for _, plain in dump.readings():
                self._find(plain, depth - 1, found)
        for plain in uuencoded(data):
            self._find(plain, depth - 1, found)
        unfinished = len(data) - len(text) + self._find_in_runs(text, depth, found)
        return min(self._find_packed(data, packers, depth, found), unfinished)

    def _find_packed(self, data: bytes, packers: list[Packer], depth: int, found: set[str]) -> int:
        unfinished = len(data)
        for member in members(data, packers):
            self._scan(iter(member), depth - 1, found)
            if member.unfinished:
                unfinished = min(unfinished, member.start)
        return unfinished

    def _find_in_runs(self, data: bytes, depth: int, found: set[str]) -> int:
        unfinished = len(data)
        small: list[bytes] = []
        for start, end in runs(data):
            run = bare(data[start:end])
            if len(run) < _SMALL_BYTES:
                small.append(run)
                continue
            self._find_coded(run, found)
            if (begin := aligned(data[start:end])) is not None:
                small.append(run[:_SMALL_BYTES])
            for _, decoded in decodings(run, only=begin):
                inner = self._find(decoded, depth - 1, found)
                if inner < len(decoded) and end == len(data):
                    unfinished = start
            for decoded in unhexed(run):
                self._find(decoded, depth - 1, found)
        if small:
            self._find_coded(b"\n".join(small), found)
            pieces = [decoded for run in small for _, decoded in decodings(run)]
            pieces += [decoded for run in small for decoded in unhexed(run)]
            for piece in pieces:
                if piece[:1] == b"\x78" and (plain := unpacked(piece)) is not None:
                    self._find(plain, depth - 1, found)
            self._find(BETWEEN.join(pieces), depth - 1, found)
        return unfinished

    def _find_coded(self, run: bytes, found: set[str]) -> None:
        """Note what stands in bare runs themselves."""
        secrets = self._secrets()
        if not secrets:
            return
        like = run.replace(b"-", b"+").replace(b"_", b"/")
        found |= {secret.name for secret in secrets if secret.in_base64(like)}
        if has_row(run, "hex", 2 * self._shortest):
            small = run.lower()
            found |= {secret.name for secret in secrets if secret.in_hex(small)}
        if has_row(run, "base32", max(8, self._shortest * 8 // 5 - 2)):
            small = run.lower()
            found |= {secret.name for secret in secrets if secret.in_base32(small)}

    def _clean_escaped(self, part: bytes) -> bytes:
        for secret in self._secrets():
            part = secret.without_escaped(part)
        return part

    def _clean_members(self, data: bytes, depth: int) -> bytes:
        """Bytes without the secrets in the gzip members that stand somewhere in them."""
        parts, end = [], 0
        for match in GZIP_MEMBER.finditer(data):
            if match.start() < end:
                continue
            member = Member(data, match.start())
            plain = b"".join(member)
            if member.end is None or (clean := self.data(plain, depth - 1)) is plain:
                continue
            packed = packed_again(clean, data[match.start() : member.end], fixed=True)
            if packed is not None:
                parts += [data[end : match.start()], packed]
                end = member.end
        return b"".join([*parts, data[end:]]) if parts else data

    def _clean_dumps(self, data: bytes, depth: int) -> bytes:
        """Bytes without the secrets in dumps of bytes."""
        parts, end = [], 0
        for dump in dumps(data):
            for way, plain in dump.readings():
                clean = self.data(plain, depth - 1)
                if clean is not plain and len(clean) == len(plain):
                    parts += [data[end : dump.start], dump.written(way, clean)]
                    end = dump.end
                    break
        return b"".join([*parts, data[end:]]) if parts else data

    def _clean_run(self, run: bytes, depth: int) -> bytes:
        """A run of base64 without the secrets in what it encodes."""
        plain_run = bare(run)
        for offset, decoded in decodings(plain_run, gzips=True):
            clean = self.data(decoded, depth - 1)
            if clean is decoded:
                continue
            same_size = len(clean) == len(decoded)
            plain_run = recoded(plain_run, offset, clean, same_size=same_size)
            if not same_size:
                return plain_run
        for secret in self._secrets():
            plain_run = secret.without_coded(plain_run)
        return with_gaps(plain_run, run)


def _changed(
    data: bytes, where: Iterable[tuple[int, int]], change: Callable[[bytes], bytes]
) -> bytes:
    """Bytes with parts of them changed."""
    pieces, done = [], 0
    for start, end in where:
        pieces += [data[done:start], change(data[start:end])]
        done = end
    return b"".join([*pieces, data[done:]])


def _without_credentials(match: re.Match[bytes]) -> bytes:
    if not _is_credential(match[1]):
        return match[0]
    return b"://" + placeholder("credentials", len(match[1]))


def _is_credential(userinfo: bytes) -> bool:
    """Whether what stands before the @ of a URL is more than a user's well-known name."""
    secret = userinfo.rpartition(b":")[2]
    bare_secret = secret.strip(b"*<>")
    return (
        userinfo not in (b"git", b"root", b"user", b"x-access-token")
        and bare_secret not in (b"", b"credentials")
        and not PLACEHOLDER.fullmatch(secret.decode("ascii", "replace"))
    )
