"""One cassette while it is in use: a blank one that fills, or one that is played back."""

from __future__ import annotations

import copy
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from vcr.cassette import Cassette
from vcr.errors import UnhandledHTTPRequestError
from vcr.persisters.filesystem import CassetteNotFoundError
from vcr.record_mode import RecordMode
from vcr.request import Request as VcrRequest

from pytest_flymachines._clock import Clock, ReplayClock
from pytest_flymachines.cassettes.commands import may_be_left_out, may_repeat
from pytest_flymachines.cassettes.files import Persister, Serializer
from pytest_flymachines.cassettes.identities import Identities
from pytest_flymachines.cassettes.kept import Attic, Kept
from pytest_flymachines.cassettes.meaning import Meaning, likeness, meaning
from pytest_flymachines.cassettes.polls import Offsets, moved, without_offsets
from pytest_flymachines.cassettes.unknown import (
    names_in,
    same_but_for_secrets,
    same_but_for_secrets_at_length,
)
from pytest_flymachines.cassettes.volatile import REPEATABLE, WEBSOCKET

__all__ = ["Asked", "Blank", "Pending", "Playback"]


@dataclass
class Pending:
    """A request that was sent, and its response once there is one.

    Attributes:
        so_far: Gives the response as it is now, for what may never end before its test does.
    """

    request: VcrRequest
    started_s: float
    response: dict[str, Any] | None = None
    so_far: Callable[[], dict[str, Any]] | None = None


class Blank:
    """A cassette that is being recorded. Thread-safe."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._zero_s: float | None = None
        self._exchanges: list[Pending] = []
        self._attic = Attic()

    def kept(self) -> Kept:
        """Where to put a body that may be large."""
        return Kept(self._attic)

    def __len__(self) -> int:
        return len(self._exchanges)

    def begin(self, request: VcrRequest) -> Pending:
        """Note a request; those with equal meaning are replayed in the order of these calls."""
        with self._lock:
            now = self._clock.monotonic()
            if self._zero_s is None:
                self._zero_s = now
            pending = Pending(request, now - self._zero_s)
            self._exchanges.append(pending)
        return pending

    def end(self, pending: Pending, response: dict[str, Any], notes: dict[str, Any]) -> None:
        """Note what came back, and how long it took."""
        assert self._zero_s is not None
        elapsed_s = self._clock.monotonic() - self._zero_s - pending.started_s
        timing = {"started_s": round(pending.started_s, 6), "elapsed_s": round(elapsed_s, 6)}
        pending.response = {**response, "recorded": {**timing, **notes}}

    def exchanges(self) -> list[tuple[VcrRequest, dict[str, Any]]]:
        """Copies of everything that was answered."""
        with self._lock:
            for pending in self._exchanges:
                if pending.so_far is not None:
                    pending.response = pending.so_far()
                    started_s = round(pending.started_s, 6)
                    pending.response["recorded"] = {"started_s": started_s, "service": WEBSOCKET}
            return [
                (copy.deepcopy(pending.request), copy.deepcopy(pending.response))
                for pending in self._exchanges
                if pending.response is not None
            ]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that looks for its answer.

    Attributes:
        meaning: What is compared.
        offsets: What it says to have read before, if it polls a process of a wider fixture.
        at_length: Gives its meaning without digests.
    """

    meaning: Meaning
    offsets: Offsets | None
    at_length: Callable[[], Meaning]


def same_meaning(ours: Asked, recorded: VcrRequest) -> None:
    """Compare two requests, as vcrpy asks its matchers to."""
    assert ours.meaning == recorded.meaning


class _Indexed(Cassette):  # type: ignore[misc]  # vcrpy has no types
    """vcrpy's cassette; finds answers by meaning in one look-up instead of a scan."""

    index: dict[Meaning, deque[int]]

    def append(self, request: VcrRequest, response: dict[str, Any]) -> None:
        """Take what was just read from the file, which nobody else has, without a copy."""
        self.data.append((request, response))

    def _responses(self, request: Asked) -> Iterator[tuple[int, dict[str, Any]]]:
        left = self.index.get(request.meaning, deque())
        while left and self.play_counts[left[0]]:
            left.popleft()
        for position in left:
            yield position, self.data[position][1]


class Playback:
    """A cassette that is replayed. Thread-safe.

    Args:
        path: The file.
        persister: Reads it.
        live: The machines of this run.
        loosely: Take a request with the same method and path and the likest body when none
            has the same: for provisioning, which sends what whoever provisions has.

    Attributes:
        header: What the file says of itself.
        data: Requests and responses, as vcrpy has them.

    Raises:
        CassetteNotFoundError: There is no file.
        CassetteError: It cannot be read.
    """

    def __init__(
        self, path: Path, persister: Persister, live: Identities, *, loosely: bool = False
    ) -> None:
        serializer = Serializer()
        self._tape = _Indexed.load(
            path=str(path),
            serializer=serializer,
            persister=persister,
            record_mode=RecordMode.NONE,
            match_on=(same_meaning,),
        )
        if not self._tape.rewound:  # vcrpy says nothing of it
            raise CassetteNotFoundError(str(path))
        self.header = serializer.header
        self.data: list[tuple[VcrRequest, dict[str, Any]]] = self._tape.data
        self._live = live
        self._then = Identities(self.header.get("machines"))
        self._loosely = loosely
        self._persister = persister
        self._lock = threading.Lock()
        self._last: dict[Meaning, dict[str, Any]] = {}
        self._times: dict[int, tuple[float, float]] = {}
        self._tape.index = {}
        self._offsets: dict[int, Offsets | None] = {}
        for position, (request, response) in enumerate(self.data):
            asked = self._meaning(request, response)
            request.meaning, self._offsets[id(response)] = without_offsets(asked)
            self._tape.index.setdefault(request.meaning, deque()).append(position)

    def play(self, asked: Asked, clock: Clock) -> dict[str, Any] | None:
        """The next answer to a request, whose time passes; None if there is none."""
        again = False
        with self._lock:
            try:
                response = self._tape.play_response(asked)
            except UnhandledHTTPRequestError:
                response = self._next_alike(asked.meaning)
                if again := response is None:
                    response = self._last.get(asked.meaning)
                if response is None and (known := self._same_but_for_secrets(asked)):
                    asked, again = replace(asked, meaning=known), False
                    response = self._tape.play_response(asked)
            if response is None:
                return None
            if not _may_repeat(asked.meaning):
                self._last.clear()
            else:
                self._last[asked.meaning] = response
        notes = response.get("recorded", {})
        if isinstance(clock, ReplayClock):
            self._pass_time(clock, notes.get("started_s", 0.0), notes.get("elapsed_s", 0.0))
        body = self._then.today(response["body"]["string"], self._live)
        recorded = self._offsets[id(response)]
        if recorded is not None and asked.offsets is not None:
            body = moved(body, recorded, asked.offsets, again=again)
        return {**response, "body": body}

    def unused(self) -> list[VcrRequest]:
        """Recorded requests that nobody made."""
        return [
            request
            for position, (request, _) in enumerate(self.data)
            if not self._tape.play_counts[position] and not may_be_left_out(request.meaning.body)
        ]

    def _same_but_for_secrets(self, asked: Asked) -> Meaning | None:
        """The next request that is the same, but has secrets that nobody knows here."""
        left = [
            exchange
            for position, exchange in enumerate(self.data)
            if not self._tape.play_counts[position]
        ]
        for request, _ in left:
            body = self._persister.request_body(request).decode("utf-8", "replace")
            if same_but_for_secrets(request.meaning, asked.meaning, names_in(request.uri, body)):
                return cast("Meaning", request.meaning)
        wanted = asked.at_length()
        for request, response in left:
            if request.meaning.line.partition("?")[0] == asked.meaning.line.partition("?")[0]:
                recorded = self._meaning(request, response, at_length=True)
                if same_but_for_secrets_at_length(recorded, wanted, request.uri):
                    return cast("Meaning", request.meaning)
        return None

    def _meaning(
        self, request: VcrRequest, response: dict[str, Any], *, at_length: bool = False
    ) -> Meaning:
        """What a recorded request means."""
        return meaning(
            request.method,
            request.uri,
            self._persister.request_body(request),
            service=response.get("recorded", {}).get("service", ""),
            rename=self._then.rename,
            at_length=at_length,
        )

    def _next_alike(self, wanted: Meaning) -> dict[str, Any] | None:
        """The answer to the request of the same address that is most alike, the earlier first."""
        if not self._loosely:
            return None
        left = [
            position
            for position, (request, _) in enumerate(self.data)
            if request.meaning.line == wanted.line and not self._tape.play_counts[position]
        ]
        if not left:
            return None
        best = max(left, key=lambda position: likeness(wanted, self.data[position][0].meaning))
        self._tape.play_counts[best] += 1
        response: dict[str, Any] = self.data[best][1]
        return response

    def _pass_time(self, clock: ReplayClock, started_s: float, elapsed_s: float) -> None:
        """Let this thread's clock show what the recording's showed.

        The time between two answers counts too, because loops with a deadline spent it; what
        the clock was told to sleep meanwhile is part of it.
        """
        thread = threading.get_ident()
        if last := self._times.get(thread):
            clock.advance(started_s - last[0] - (clock.monotonic() - last[1]))
        clock.advance(elapsed_s)
        self._times[thread] = (started_s + elapsed_s, clock.monotonic())


def _may_repeat(wanted: Meaning) -> bool:
    return bool(REPEATABLE.fullmatch(wanted.line)) or may_repeat(wanted.body)
