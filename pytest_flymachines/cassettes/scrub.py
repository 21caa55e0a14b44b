"""Taking secrets out of what is recorded, however they are written, and finding what is left.

A placeholder is exactly as long as what it replaces. So sizes and offsets in answers, tar
archives and base64 stay true, and a replayed client that relies on them works on.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

from pytest_flymachines.cassettes.packing import (
    MEMBER,
    Member,
    expanded,
    opened,
    packed_again,
    unpacked,
    with_checksums,
)
from pytest_flymachines.cassettes.runs import RUN, bare, decodings, recoded, with_gaps
from pytest_flymachines.cassettes.spelling import PLACEHOLDER, anchors, core, placeholder, spellings
from pytest_flymachines.cassettes.volatile import SECRET_NAME
from pytest_flymachines.options import TOKEN_VARIABLES

__all__ = ["Scrubber"]

_SHORTEST = 4
_SHORTEST_GUESS = 8
_DEPTH = 4
# requests go to few addresses, again and again
_REMEMBERED = 200
# of what is too large to be held: so much is looked through at a time, and so much of it again
_WINDOW_BYTES = 2 << 20
_OVERLAP_BYTES = 32 << 10

_URL = re.compile(rb"(?<=://)[^/\s\"'<>@]+(?=@[A-Za-z0-9\[])")
_HEADER = re.compile(
    rb"(authorization(?:\\?[\"'])?\s*[:=]\s*(?:\\?[\"'])?(?:bearer|basic|flyv1|token)\s+)"
    rb"(?=[^\s\"']*[0-9=_+/]|[^\s\"']+(?-i:[A-Z]))([^\s\"'\\<>*]{8,})",
    re.IGNORECASE,
)
_SCHEMES = re.compile(r"^(?:(?:bearer|flyv1|basic|token)\s+)+", re.IGNORECASE)


class Scrubber:
    """Knows the secret values of a run.

    Values come from the environment (Fly's tokens, and variables whose names say that they
    are secret), from what the user names, and from the `Authorization` of each request.
    """

    def __init__(self, named: Iterable[str] = (), environ: Mapping[str, str] | None = None) -> None:
        """Take the secrets of the environment.

        Args:
            named: What the user names: a variable of the environment, or a value itself.
            environ: The environment; None takes this process's.
        """
        self._names: dict[bytes, str] = {}
        self._anchors: list[bytes] | None = None
        self._secrets = re.compile(rb"(?!)")
        self._clean_texts: dict[str, str] = {}
        self._groups: list[tuple[str, int]] = []
        environ = os.environ if environ is None else environ
        for name in TOKEN_VARIABLES:
            self.add_token(name, environ.get(name, ""))
        for name, value in environ.items():
            if SECRET_NAME.search(name) and not value.startswith("/"):
                self.add(name, value, shortest=_SHORTEST_GUESS)
        for entry in named:
            if entry in environ:
                self.add(entry, environ[entry], shortest=1)
            else:
                self.add("scrubbed", entry, shortest=1)

    def add(self, name: str, value: str, *, shortest: int = _SHORTEST) -> None:
        """Remember a secret; what is shorter than `shortest` characters stands for too much."""
        data = value.strip().encode("utf-8", "surrogateescape")
        if len(data) >= shortest and data not in self._names:
            self._names[data] = name
            self._anchors = None
            self._clean_texts.clear()

    def add_token(self, name: str, value: str) -> None:
        """Remember a token, its parts, and both without the scheme that may stand before it.

        Fly's macaroons are several, joined by commas
        (https://github.com/superfly/fly-go/blob/main/tokens/tokens.go).
        """
        bare = _SCHEMES.sub("", value.strip())
        for part in (bare, *bare.split(",")):
            self.add(name, part)

    def data(self, data: bytes, depth: int = _DEPTH) -> bytes:
        """Bytes without secrets; the same object when there is none."""
        if not self.find(data, depth):
            return data
        if depth:
            if (plain := unpacked(data)) is not None:
                clean = self.data(plain, depth - 1)
                return data if clean is plain else packed_again(clean, data) or data
            data = self._clean_members(data, depth)
            data = RUN.sub(lambda m: self._clean_run(m[0], depth), data)
        data = _URL.sub(self._credentials, data)
        data = _HEADER.sub(lambda m: m[1] + placeholder("Authorization", len(m[2])), data)
        return with_checksums(self._secrets.sub(self._replace, data))

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

    def find(self, data: bytes, depth: int = _DEPTH) -> set[str]:
        """Names of the secrets that stand in `data`, plain or encoded."""
        found: set[str] = set()
        self._find(data, depth, found)
        return found

    def scan(self, chunks: Iterable[bytes]) -> set[str]:
        """Names of the secrets that stand in a stream, which is never held as a whole."""
        found: set[str] = set()
        self._scan(iter(chunks), _DEPTH, found)
        return found

    def _scan(self, chunks: Iterator[bytes], depth: int, found: set[str]) -> None:
        held, wanted = b"", _WINDOW_BYTES
        first = True
        for chunk in chunks:
            held += chunk
            if len(held) < wanted:
                continue
            if first and depth and MEMBER.match(held):
                self._scan(expanded(chain([held], chunks)), depth - 1, found)
                return
            first = False
            unfinished = self._find(held, depth, found)
            held = held[min(unfinished, len(held) - _OVERLAP_BYTES) :]
            wanted = max(_WINDOW_BYTES, 2 * len(held))
        self._find(held, depth, found)

    def _find(self, data: bytes, depth: int, found: set[str]) -> int:
        """Note what stands in `data`; where something packed begins that goes on after it."""
        # nearly everything has nothing to be found
        if self._may_stand_in(data):
            found |= {self._groups[(m.lastindex or 0) - 1][0] for m in self._secrets.finditer(data)}
        if (b"uthorization" in data or b"UTHORIZATION" in data) and _HEADER.search(data):
            found.add("Authorization")
        if b"://" in data and any(_is_credential(m[0]) for m in _URL.finditer(data)):
            found.add("credentials in a URL")
        unfinished = len(data)
        if not depth:
            return unfinished
        for plain in opened(data):
            self._find(plain, depth - 1, found)
        end = 0
        for match in MEMBER.finditer(data):
            if match.start() >= end:
                member = Member(data, match.start())
                self._scan(iter(member), depth - 1, found)
                end = member.end or end
                if member.unfinished:
                    unfinished = min(unfinished, match.start())
        for run in RUN.finditer(data):
            for _, decoded in decodings(bare(run[0])):
                inner = self._find(decoded, depth - 1, found)
                if inner < len(decoded) and run.end() == len(data):
                    unfinished = min(unfinished, run.start())
        return unfinished

    def _may_stand_in(self, data: bytes) -> bool:
        """Whether the patterns have to be tried, which takes long."""
        if self._anchors is None:
            self._compile()
        return any(anchor in data for anchor in self._anchors or ())

    def _compile(self) -> None:
        ways = [
            (way, name, shift)
            for value, name in sorted(self._names.items(), key=lambda item: -len(item[0]))
            for way, shift in spellings(value)
        ]
        self._groups = [(name, shift) for _, name, shift in ways]
        alternatives = b"|".join(b"(%b)" % way for way, _, _ in ways)
        self._secrets = re.compile(alternatives or rb"(?!)")
        self._anchors = list(dict.fromkeys(chain.from_iterable(map(anchors, self._names))))

    def _replace(self, match: re.Match[bytes]) -> bytes:
        assert match.lastindex
        name, shift = self._groups[match.lastindex - 1]
        if shift < 0:
            return placeholder(name, len(match[0]))
        return core(placeholder(name, len(match[0])), shift)[: len(match[0])]

    @staticmethod
    def _credentials(match: re.Match[bytes]) -> bytes:
        if not _is_credential(match[0]):
            return match[0]
        return placeholder("credentials", len(match[0]))

    def _clean_members(self, data: bytes, depth: int) -> bytes:
        """Bytes without the secrets in the gzip members that stand somewhere in them."""
        parts, end = [], 0
        for match in MEMBER.finditer(data):
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

    def _clean_run(self, run: bytes, depth: int) -> bytes:
        """A run of base64 without the secrets in what it encodes."""
        plain_run = bare(run)
        for offset, decoded in decodings(plain_run):
            clean = self.data(decoded, depth - 1)
            if clean is decoded:
                continue
            same_size = len(clean) == len(decoded)
            plain_run = recoded(plain_run, offset, clean, same_size=same_size)
            if not same_size:
                return plain_run
        return with_gaps(plain_run, run)


def _is_credential(userinfo: bytes) -> bool:
    """Whether what stands before the @ of a URL is more than a user's well-known name."""
    secret = userinfo.rpartition(b":")[2]
    bare_secret = secret.strip(b"*<>")
    return (
        userinfo not in (b"git", b"root", b"user", b"x-access-token")
        and bare_secret not in (b"", b"credentials")
        and not PLACEHOLDER.fullmatch(secret.decode("ascii", "replace"))
    )
