"""What a request means: the part of it that must be equal for a recorded answer to fit.

Two requests with equal meaning are the same request, whoever sent them, to whichever machine
and app, on whichever computer. What is left out is listed in `volatile`.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import io
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote

import msgspec

from pytest_flymachines.cassettes.commands import command_meaning, runs
from pytest_flymachines.cassettes.jsons import json_value
from pytest_flymachines.cassettes.packing import unpacked, without_tail
from pytest_flymachines.cassettes.spelling import without_padding
from pytest_flymachines.cassettes.volatile import (
    ANSWER_FIELDS,
    BODIES,
    BODY_FIELDS,
    PATHS,
    QUERY,
    RUNNER,
    SECRET_NAME,
    UPLOADED_MODE,
    UPLOADED_TIME,
    Volatile,
)

__all__ = ["Meaning", "answer_meaning", "likeness", "meaning", "target"]

_RUNNER = RUNNER.encode()
_LONGEST_SHORT = 300
_ORIGIN = re.compile(r"^[a-z][a-z0-9+.-]*://[^/?#]*")

Rename = Callable[[str], str]


class Meaning(NamedTuple):
    """What is compared.

    Attributes:
        line: Service, if it is not the API or the agent, then method, path and query.
        body: Canonical JSON on one line; for anything else text or a digest.
    """

    line: str
    body: str

    def lines(self) -> list[str]:
        """For people, and for a diff between two of them."""
        if self.body[:1] in ("{", "["):
            body = msgspec.json.format(self.body, indent=2)
        else:
            body = self.body
        return [self.line, *body.splitlines()]

    def short(self) -> str:
        """On one line, cut off where it is long."""
        text = " ".join(f"{self.line} {self.body}".split())
        return text if len(text) <= _LONGEST_SHORT else text[:_LONGEST_SHORT] + "..."


def meaning(
    method: str,
    uri: str,
    body: bytes,
    *,
    service: str = "",
    rename: Rename = str,
    at_length: bool = False,
) -> Meaning:
    """The meaning of a request.

    Args:
        method: HTTP method.
        uri: Absolute URL, or path and query alone, without secrets.
        body: Without content-encoding and without secrets.
        service: What is asked, when it is neither the Machines API nor the agent.
        rename: Takes the known ids of machines out of text.
        at_length: Put no digest in the place of what is long, and leave placeholders in the body
            as long as they are.
    """
    line, where = _address(method, uri, service)
    line = without_padding(rename(line))
    if service:
        line = f"[{service}] {line}"
    if not body or where is None:
        return Meaning(line, "")
    if at_length:
        return Meaning(line, rename(_body(body, where, _at_length)))
    return Meaning(line, without_padding(rename(_body(body, where, _opaque))))


def target(uri: str) -> str:
    """Path and query of a URL."""
    return _ORIGIN.sub("", uri, count=1) or "/"


def answer_meaning(body: bytes) -> str:
    """An answer's body without what differs from run to run."""
    value = json_value(body)
    if value is None:
        return _opaque(body)
    return _encode(_without(value, "", ANSWER_FIELDS))


def likeness(one: Meaning, other: Meaning) -> float:
    """How much two requests have in common, from 0 to 3; the address counts most."""
    body = difflib.SequenceMatcher(None, one.body[:4000], other.body[:4000], False)
    line = difflib.SequenceMatcher(None, one.line, other.line, False)
    return 2 * line.ratio() + body.ratio()


@functools.lru_cache(maxsize=1024)
def _address(method: str, uri: str, service: str) -> tuple[str, str | None]:
    """The line, and by which rules the body is compared, if it is."""
    path, _, query = target(uri).partition("?")
    if not service:
        for pattern, replacement, _ in PATHS:
            path = pattern.sub(replacement, path)
    where = f"{method} {path}"
    line = f"{where}{_query(where, query)}"
    if BODIES.fullmatch(f"{method} {target(uri)}"):
        return line, None
    return line, "" if service else where


def _query(where: str, query: str) -> str:
    if not query:
        return ""
    drop = _rules(QUERY, where)
    told = parse_qsl(query, keep_blank_values=True, errors="surrogateescape")
    uploaded = any(name == UPLOADED_TIME for name, _ in told)
    pairs = sorted(
        (name, runs(value, 10) if uploaded and name == UPLOADED_MODE else value)
        for name, value in told
        if drop is None or not drop.fullmatch(name)
    )
    text = "&".join(f"{_quote(name)}={_quote(value)}" for name, value in pairs)
    return f"?{text}" if text else ""


def _quote(text: str) -> str:
    return quote(without_padding(text), safe="/:,<>", errors="surrogateescape")


def _body(body: bytes, where: str, told: Callable[[bytes], str]) -> str:
    value = json_value(body)
    if value is None:
        return told(body)
    if isinstance(value, dict) and _RUNNER in body and "command" in value:
        value = {**value, "command": command_meaning(value.get("command"), told)}
    drop = _rules(BODY_FIELDS, where)
    if b'"env"' in body or (drop is not None and r"\." in drop.pattern):
        value = _without(value, "", drop)
    elif drop is not None and isinstance(value, dict):
        value = {name: item for name, item in value.items() if not drop.fullmatch(name)}
    return _encode(value)


@functools.lru_cache(maxsize=1024)
def _rules(rules: tuple[Volatile, ...], where: str) -> re.Pattern[str] | None:
    """One pattern for everything volatile in requests to `where`."""
    what = [rule.what for rule in rules if re.fullmatch(rule.where, where)]
    return re.compile("|".join(what)) if what else None


def _without(value: Any, way: str, drop: re.Pattern[str] | None) -> Any:
    """A JSON value without what `drop` matches, and without values of secret variables."""
    if isinstance(value, dict):
        if way.rpartition(".")[2] == "env":
            return {k: f"<{k}>" if SECRET_NAME.search(k) else v for k, v in value.items()}
        return dict(_kept(value.items(), way, drop))
    if isinstance(value, list):
        return [item for _, item in _kept(_named(value), way, drop)]
    return value


def _kept(
    pairs: Iterable[tuple[str, Any]], way: str, drop: re.Pattern[str] | None
) -> Iterator[tuple[str, Any]]:
    for name, item in pairs:
        inner = f"{way}.{name}" if way else name
        if drop is None or not drop.fullmatch(inner):
            yield name, _without(item, inner, drop)


def _named(items: list[Any]) -> Iterator[tuple[str, Any]]:
    """Items of a list, files by their path and everything else by its position."""
    for position, item in enumerate(items):
        path = item.get("guest_path") if isinstance(item, dict) else None
        yield (path if isinstance(path, str) else str(position)), item


def _encode(value: Any) -> str:
    return msgspec.json.encode(value, order="deterministic").decode("utf-8", "surrogateescape")


def _opaque(body: bytes) -> str:
    """Short text is itself, an archive is its members, anything else is its digest."""
    plain = unpacked(body)
    body = body if plain is None else plain
    if (members := _archive(body)) is not None:
        return members
    if len(body) <= 2048:
        try:
            return body.decode()
        except UnicodeDecodeError:
            pass
    return f"{len(body)} bytes, sha256 {hashlib.sha256(body).hexdigest()}"


def _at_length(body: bytes) -> str:
    """All text in a body, also in the members of an archive."""
    plain = unpacked(body)
    body = body if plain is None else plain
    if (members := _archive(body, _at_length)) is not None:
        return members
    return without_tail(body).decode("utf-8", "backslashreplace")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _archive(body: bytes, told: Callable[[bytes], str] = _digest) -> str | None:
    """A tar archive by its members; owner and times are those of whoever packed it."""
    if body[257:262] != b"ustar":
        return None
    lines = []
    try:
        with tarfile.open(fileobj=io.BytesIO(body), mode="r:") as archive:
            for member in archive:
                file = archive.extractfile(member) if member.isreg() else None
                content = told(file.read()) if file else member.linkname
                runs = "x" if member.mode & 0o111 else "-"
                kind = member.type.decode("ascii", "replace")
                lines.append(f"{member.name!a} {kind}{runs} {content!a}")
    except (tarfile.TarError, EOFError):
        return None
    return "\n".join(["tar archive", *sorted(lines)])
