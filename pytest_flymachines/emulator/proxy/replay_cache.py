"""Replays that are remembered, so that requests reach their machine at once.

By path, as the answer of the app that replays says, or by a cookie or header, as
`http_options.replay_cache` says. Source:
https://fly.io/docs/networking/dynamic-request-routing/#replay-caching.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pytest_flymachines.emulator.proxy.destination import Destination
from pytest_flymachines.emulator.proxy.headers import first
from pytest_flymachines.emulator.proxy.message import Request
from pytest_flymachines.emulator.proxy.replay import Replay
from pytest_flymachines.emulator.service_config import ReplayCacheRule

__all__ = ["Remembered", "ReplayCache"]

MIN_TTL_S = 10
MAX_ENTRIES = 10_000
MAX_DEPTH = 64

# App, host, path; and of a session the kind and name of what identifies it, and its value.
Key = tuple[str, ...]


@dataclass(frozen=True)
class Remembered:
    """A replay that applies to a request.

    Attributes:
        key: Of the entry.
        replay: Where it leads.
        excluded: The machine that it leads away from, or an empty string.
        until: When it is forgotten, by the cache's clock.
        allow_bypass: A visitor may skip it.
    """

    key: Key
    replay: Replay
    excluded: str
    until: float
    allow_bypass: bool


class ReplayCache:
    """All replays that are remembered."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """Begin with none.

        Args:
            now: A clock, in seconds.
        """
        self.now = now
        self._entries: dict[Key, Remembered] = {}

    def find(self, request: Request, to: Destination) -> Remembered | None:
        """What is remembered for a request: of several, that with the longest path."""
        if not self._entries:
            return None
        for key in _keys(request, to):
            entry = self._entries.get(key)
            if entry and entry.until > self.now():
                return entry
            self._entries.pop(key, None)
        return None

    def may_bypass(self, request: Request, to: Destination) -> bool:
        """Whether the visitor of a request asks for no cached replay, and is allowed to."""
        if first(request.headers, b"fly-replay-cache-control").strip().lower() != "skip":
            return False
        entry, rule = self.find(request, to), _rule(request, to)
        return entry.allow_bypass if entry else rule is not None and rule[1].allow_bypass

    def learn(self, request: Request, to: Destination, replay: Replay, source: str) -> str:
        """Take note of a replay that an app has answered.

        Args:
            request: What it has answered.
            to: What the request was addressed to.
            replay: The answer.
            source: The machine that answered.

        Returns:
            Why it is not cached although the app asked for that; else empty.
        """
        excluded = source if replay.elsewhere else ""
        if found := _rule(request, to):
            key, rule = found
            if rule.ttl_seconds >= MIN_TTL_S and not _uncachable(replay):
                self._put(key, replay, excluded, rule.ttl_seconds, allow_bypass=rule.allow_bypass)
        cache = replay.cache
        if cache is None or cache.invalidate:
            return ""
        host, path = _pattern(cache.prefix)
        if why := _uncachable(replay):
            return f"a fly-replay with {why} cannot be cached"
        if cache.ttl < MIN_TTL_S:
            return f"fly-replay-cache-ttl-secs is {cache.ttl:g}, and must be at least {MIN_TTL_S}"
        if host not in ("", _host(request)) or path not in _prefixes(request):
            return f"fly-replay-cache {cache.prefix!r} does not match the request"
        key = (to.app.name, _host(request), path)
        self._put(key, replay, excluded, cache.ttl, allow_bypass=cache.allow_bypass)
        return ""

    def forget(self, request: Request, to: Destination) -> None:
        """Forget what applies to a request."""
        for key in _keys(request, to):
            self._entries.pop(key, None)

    def _put(
        self, key: Key, replay: Replay, excluded: str, ttl_s: float, *, allow_bypass: bool
    ) -> None:
        while len(self._entries) >= MAX_ENTRIES:
            del self._entries[next(iter(self._entries))]
        self._entries[key] = Remembered(key, replay, excluded, self.now() + ttl_s, allow_bypass)


def _keys(request: Request, to: Destination) -> Iterator[Key]:
    """Where entries for a request may be, those with the longest path first."""
    session = _rule(request, to)
    for path in _prefixes(request):
        if session and session[0][2] == path:
            yield session[0]
        yield to.app.name, _host(request), path


def _rule(request: Request, to: Destination) -> tuple[Key, ReplayCacheRule] | None:
    """The rule of the port that applies to a request, and where its entry is."""
    options = to.port.http_options
    prefixes, host = _prefixes(request), _host(request)
    found = []
    for rule in (options.replay_cache if options else None) or ():
        rule_host, path = _pattern(rule.path_prefix)
        value = _value(request, rule)
        if value and rule_host in ("", host) and path in prefixes:
            key = (to.app.name, host, path, rule.type, rule.name.lower(), value)
            found.append((key, rule))
    return max(found, key=lambda one: len(one[0][2]), default=None)


def _value(request: Request, rule: ReplayCacheRule) -> str:
    name = rule.name.lower().encode("latin-1", "replace")
    if rule.type == "header":
        return first(request.headers, name)
    cookies = (part.partition("=") for part in first(request.headers, b"cookie").split(";"))
    return next((value.strip() for key, _, value in cookies if key.strip() == rule.name), "")


def _uncachable(replay: Replay) -> str:
    """What about a replay cannot be remembered."""
    change = replay.transform
    if change.path or change.delete_headers or change.set_headers:
        return "transform"
    return next((name for name in ("state", "timeout", "fallback") if getattr(replay, name)), "")


def _pattern(text: str) -> tuple[str, str]:
    """Host, if one is named, and path, without the slash or `/*` at the end."""
    host, slash, path = text.partition("/")
    return host.lower(), f"{slash}{path}".removesuffix("*").rstrip("/")


def _host(request: Request) -> str:
    name, colon, port = request.host.rpartition(":")
    return name if colon and port.isdigit() else request.host


def _prefixes(request: Request) -> list[str]:
    """The paths that a request is below, from its own, unless it is too deep, to the empty one."""
    path = request.target.partition(b"?")[0].decode("latin-1")
    parts = path.rstrip("/").split("/")[:MAX_DEPTH]
    return ["/".join(parts[:length]) for length in range(len(parts), 0, -1)]
