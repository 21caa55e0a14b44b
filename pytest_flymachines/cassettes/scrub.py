"""Taking secrets out of what is recorded, however they are written, and finding what is left.

A placeholder is exactly as long as what it replaces. So sizes and offsets in answers, tar
archives and base64 stay true, and a replayed client that relies on them works on.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import html
import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping

from pytest_flymachines.cassettes.volatile import SECRET_NAME
from pytest_flymachines.options import TOKEN_VARIABLES

__all__ = ["Scrubber", "unpacked", "without_padding"]

_SHORTEST = 4
_SHORTEST_GUESS = 8
_SHORTEST_CORE = 8
_DEPTH = 4
# requests go to few addresses, again and again
_REMEMBERED = 200

# base64, also wrapped into lines, also where a JSON text inside a text writes its line ends
_GAP = rb"(?:\s|\\[nr])+"
_RUN = re.compile(rb"[A-Za-z0-9+/_-]{8,}(?:%b[A-Za-z0-9+/_-]+)*={0,2}" % _GAP)
_GAPS = re.compile(_GAP)

_URL = re.compile(rb"(?<=://)[^/\s\"'<>@]+(?=@[A-Za-z0-9\[])")
_HEADER = re.compile(
    rb"(authorization(?:\\?[\"'])?\s*[:=]\s*(?:\\?[\"'])?(?:bearer|basic|flyv1|token)\s+)"
    rb"(?=[^\s\"']*[0-9=_+/]|[^\s\"']+(?-i:[A-Z]))([^\s\"'\\<>*]{8,})",
    re.IGNORECASE,
)
_SCHEMES = re.compile(r"^(?:(?:bearer|flyv1|basic|token)\s+)+", re.IGNORECASE)
_PLACEHOLDER = re.compile(r"<([A-Za-z_][A-Za-z0-9_ .-]*)\*+>")


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
        self._pattern: re.Pattern[bytes] | None = None
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
            self._pattern = None
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
        if (plain := unpacked(data)) is not None and depth:
            clean = self.data(plain, depth - 1)
            return data if clean is plain else _packed(clean, data)
        data = _URL.sub(self._credentials, data)
        data = _HEADER.sub(lambda m: m[1] + _placeholder("Authorization", len(m[2])), data)
        if depth:
            data = _RUN.sub(lambda m: self._clean_run(m[0], depth), data)
        return self._secrets.sub(self._replace, data)

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

    def _find(self, data: bytes, depth: int, found: set[str]) -> None:
        # nearly everything has nothing to be found, and one search says so
        if self._compiled().search(data):
            found |= {self._groups[(m.lastindex or 0) - 1][0] for m in self._secrets.finditer(data)}
            if _HEADER.search(data):
                found.add("Authorization")
            if any(_is_credential(m[0]) for m in _URL.finditer(data)):
                found.add("credentials in a URL")
        if not depth:
            return
        if (plain := unpacked(data)) is not None:
            self._find(plain, depth - 1, found)
        for run in _RUN.finditer(data):
            for _, decoded in _decodings(_GAPS.sub(b"", run[0])):
                self._find(decoded, depth - 1, found)

    def _compiled(self) -> re.Pattern[bytes]:
        if self._pattern is None:
            spellings = [
                (spelling, name, shift)
                for value, name in sorted(self._names.items(), key=lambda item: -len(item[0]))
                for spelling, shift in _spellings(value)
            ]
            self._groups = [(name, shift) for _, name, shift in spellings]
            alternatives = b"|".join(b"(%b)" % spelling for spelling, _, _ in spellings)
            self._secrets = re.compile(alternatives or rb"(?!)")
            self._pattern = re.compile(rb"(?i:authorization)|://[^/\s]+@|" + self._secrets.pattern)
        return self._pattern

    def _replace(self, match: re.Match[bytes]) -> bytes:
        assert match.lastindex
        name, shift = self._groups[match.lastindex - 1]
        if shift < 0:
            return _placeholder(name, len(match[0]))
        return _core(_placeholder(name, len(match[0])), shift)[: len(match[0])]

    @staticmethod
    def _credentials(match: re.Match[bytes]) -> bytes:
        if not _is_credential(match[0]):
            return match[0]
        return _placeholder("credentials", len(match[0]))

    def _clean_run(self, run: bytes, depth: int) -> bytes:
        """A run of base64 without the secrets in what it encodes."""
        bare = _GAPS.sub(b"", run)
        for offset, decoded in _decodings(bare):
            clean = self.data(decoded, depth - 1)
            if clean is decoded:
                continue
            coded = base64.b64encode(clean)
            if b"-" in bare or b"_" in bare:
                coded = coded.translate(_TO_URLSAFE)
            if len(clean) != len(decoded):
                return bare[:offset] + coded
            # the last character of an unpadded end also holds bits of what follows
            bare = bare[:offset] + coded[: len(bare) - offset]
        return _with_gaps(bare, run)


def without_padding(text: str) -> str:
    """Placeholders without what makes them as long as the secret, so that any two match."""
    return _PLACEHOLDER.sub(r"<\1>", text) if "*>" in text else text


def _placeholder(name: str, size: int) -> bytes:
    label = f"<{name}".encode("ascii", "replace")
    if len(label) + 1 > size:
        return b"*" * size
    return label + b"*" * (size - len(label) - 1) + b">"


def _is_credential(userinfo: bytes) -> bool:
    """Whether what stands before the @ of a URL is more than a user's well-known name."""
    secret = userinfo.rpartition(b":")[2]
    bare = secret.strip(b"*<>")
    return (
        userinfo not in (b"git", b"root", b"user", b"x-access-token")
        and bare not in (b"", b"credentials")
        and not _PLACEHOLDER.fullmatch(secret.decode("ascii", "replace"))
    )


def _spellings(value: bytes) -> Iterator[tuple[bytes, int]]:
    """Patterns for a value as it may be written, with the shift of a base64 core, else -1."""
    text = value.decode("utf-8", "surrogateescape")
    yield b"".join(_character(character) for character in text), -1
    yield b"(?i:%b)" % value.hex().encode(), -1
    for shift in range(3):
        core = _core(value, shift)
        if len(core) >= _SHORTEST_CORE:
            yield b"[+-]".join(re.escape(c).replace(b"/", b"[/_]") for c in core.split(b"+")), shift


def _character(character: str) -> bytes:
    """A pattern for one character, plain or as URLs, JSON, HTML and shells write it."""
    data = character.encode("utf-8", "surrogateescape")
    if data.isalnum() and data.isascii():
        return data
    units = character.encode("utf-16-be", "surrogatepass")
    escaped = "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))
    forms = [
        re.escape(data),
        b"(?i:%b)" % "".join(f"%{byte:02x}" for byte in data).encode(),
        b"(?i:%b)" % re.escape(escaped.encode()),
        re.escape(json.dumps(character)[1:-1].encode()),
        re.escape(html.escape(character).encode("utf-8", "surrogateescape")),
        *([rb"\+"] if character == " " else []),
        *([rb"'\\''", rb"'\"'\"'"] if character == "'" else []),
    ]
    return b"(?:%b)" % b"|".join(dict.fromkeys(forms))


_TO_URLSAFE = bytes.maketrans(b"+/", b"-_")
_FROM_URLSAFE = bytes.maketrans(b"-_", b"+/")


def _core(value: bytes, shift: int) -> bytes:
    """The base64 characters that `value` alone decides, with `shift` bytes before it."""
    coded = base64.b64encode(b"\0" * shift + value)
    return coded[-(-shift * 8 // 6) : (shift + len(value)) * 8 // 6]


def _decodings(run: bytes) -> Iterator[tuple[int, bytes]]:
    """What a run of base64 characters may encode, by where its first group begins."""
    standard = run.rstrip(b"=").translate(_FROM_URLSAFE)
    for offset in range(min(4, len(standard))):
        part = standard[offset:]
        if len(part) % 4 == 1:
            part = part[:-1]
        try:
            yield offset, binascii.a2b_base64(part + b"=" * (-len(part) % 4))
        except binascii.Error:
            continue


def _with_gaps(bare: bytes, run: bytes) -> bytes:
    """`bare` with the line breaks of `run`."""
    pieces, position = [], 0
    for piece in re.split(b"(" + _GAP + b")", run):
        if _GAPS.fullmatch(piece):
            pieces.append(piece)
        else:
            pieces.append(bare[position : position + len(piece)])
            position += len(piece)
    return b"".join(pieces)


def unpacked(data: bytes) -> bytes | None:
    """What gzip or zlib data holds; None for anything else."""
    try:
        if data[:2] == b"\x1f\x8b":
            return gzip.decompress(data)
        if data[:1] == b"\x78" and len(data) > 2 and int.from_bytes(data[:2]) % 31 == 0:
            return zlib.decompress(data)
    except (OSError, EOFError, zlib.error):
        pass
    return None


def _packed(plain: bytes, like: bytes) -> bytes:
    return gzip.compress(plain, mtime=0) if like[:2] == b"\x1f\x8b" else zlib.compress(plain)
