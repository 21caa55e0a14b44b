"""`fly-replay`: an app's answer that sends the request elsewhere.

Source: https://fly.io/docs/networking/dynamic-request-routing/.
"""

from __future__ import annotations

import re

import msgspec

from pytest_flymachines.emulator.proxy.headers import Headers, first
from pytest_flymachines.emulator.proxy.message import Problem
from pytest_flymachines.emulator.wiretime import Duration, DurationError

__all__ = ["Replay", "asked_for", "read"]

JSON = "application/vnd.fly.replay+json"
FALLBACKS = ("", "force_self", "prefer_self")
YES = ("yes", "true", "1")
FIELD = re.compile(r"""\s*([a-z_]+)\s*=\s*(?:"([^"]*)"|([^;"]*))\s*(?:;|$)""")


class SetHeader(msgspec.Struct):
    """A header to set on the request."""

    name: str
    value: str = ""


class Transform(msgspec.Struct):
    """What changes about the request."""

    path: str = ""
    delete_headers: list[str] = []
    set_headers: list[SetHeader] = []


class Cache(msgspec.Struct):
    """Whether later requests are to go there too, without asking.

    Attributes:
        prefix: Of the paths: a host may stand before, and `/*` after it.
        ttl: Seconds.
        invalidate: Instead: forget what applied to this request.
        allow_bypass: A visitor may ask for the app that replays.
    """

    prefix: str = ""
    ttl: float = 0
    invalidate: bool = False
    allow_bypass: bool = False


class Replay(msgspec.Struct, kw_only=True):
    """Where the request is to go now; field names are those of the JSON form."""

    region: str = ""
    instance: str = ""
    prefer_instance: str = ""
    app: str = ""
    state: str = ""
    elsewhere: bool = False
    timeout: str = ""
    fallback: str = ""
    transform: Transform = msgspec.field(default_factory=Transform)
    cache: Cache | None = None
    allow_bypass: bool = False

    @property
    def timeout_s(self) -> float | None:
        """How long to try, in seconds; None: as long as ever."""
        return Duration.parse(self.timeout).seconds if self.timeout else None


def asked_for(headers: Headers) -> bool:
    """Whether a response is one to replay."""
    kind = first(headers, b"content-type").partition(";")[0].strip().lower()
    return kind == JSON or bool(first(headers, b"fly-replay"))


def read(headers: Headers, body: bytes) -> Replay:
    """Read the replay that a response asks for.

    Raises:
        Problem: It cannot be read.
    """
    try:
        if header := first(headers, b"fly-replay"):
            replay = msgspec.convert(_fields(header), Replay, strict=False)
            replay.cache = _cache(headers)
        else:
            replay = msgspec.json.decode(body, type=Replay)
            if replay.cache and replay.allow_bypass:
                replay.cache.allow_bypass = True
        if (replay.timeout_s or 0) < 0:
            raise ValueError(f"timeout {replay.timeout!r} is negative")
        if replay.fallback not in FALLBACKS:
            raise ValueError(f"fallback {replay.fallback!r} is not force_self or prefer_self")
    except (ValueError, DurationError) as error:
        text = f"[PA03] could not parse the fly-replay that the app returned: {error}"
        raise Problem(502, text) from None
    return replay


def _cache(headers: Headers) -> Cache | None:
    prefix = first(headers, b"fly-replay-cache").strip()
    if not prefix:
        return None
    ttl = first(headers, b"fly-replay-cache-ttl-secs").strip()
    return Cache(
        prefix=prefix,
        ttl=float(ttl or 0),
        invalidate=prefix == "invalidate",
        allow_bypass=first(headers, b"fly-replay-cache-allow-bypass").strip().lower() in YES,
    )


def _fields(header: str) -> dict[str, str]:
    fields, end = {}, 0
    for found in FIELD.finditer(header):
        if found.start() != end:
            break
        fields[found[1]] = found[3].strip() if found[2] is None else found[2]
        end = found.end()
    if end != len(header):
        raise ValueError(f"{header!r} is not a list of field=value, separated by semicolons")
    return fields
