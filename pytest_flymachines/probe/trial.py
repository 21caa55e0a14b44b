"""What a check works with: requests, machines, and comparisons with what is expected."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pytest_flymachines.probe.ground import Closed, Ground
from pytest_flymachines.probe.guest import KEPT, Guest
from pytest_flymachines.probe.wire import Answer, CannotTell, Query

__all__ = ["Comparison", "Site", "Trial", "shape"]

T = TypeVar("T")

_TRIES = 6
_PAUSE_S = 1.5


@dataclass(frozen=True)
class Comparison:
    """Something that was compared.

    Attributes:
        what: Such as `status`.
        expected: In words or as a value.
        observed: What came.
        holds: Whether it is as expected.
    """

    what: str
    expected: Any
    observed: Any
    holds: bool


@dataclass
class Site:
    """What the checks of one area share: a machine, made when the first one asks for it."""

    ground: Ground
    stopping: threading.Event
    guest: Guest | None = None
    made: list[str] = field(default_factory=list)


class Trial:
    """One check at work.

    Attributes:
        ground: App and run.
        exchanges: Every request and its answer.
        comparisons: With what is expected.
        notes: What was learned about something unknown.
        made: Machines of this check alone.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self.ground = site.ground
        self.machines = f"{site.ground.path}/machines"
        self.exchanges: list[Answer] = []
        self.comparisons: list[Comparison] = []
        self.notes: dict[str, Any] = {}
        self.made: list[str] = []

    # Requests.

    def send(
        self, method: str, path: str, body: Any = None, *, private: bool = False, **options: Any
    ) -> Answer:
        """Send a request; one that is refused for its frequency is sent again.

        Args:
            method: HTTP method.
            path: From `/v1` on.
            body: JSON, or bytes.
            private: The answer tells of what is not the probe's: it is kept out of the report.
            options: Of `Wire.send`; with `pace=False` a 429 is an answer like any other.

        Raises:
            Closed: The probe is ending.
            NoAnswer: The server did not answer.
        """
        for _ in range(_TRIES):
            if self._site.stopping.is_set():
                raise Closed
            answer = self.ground.wire.send(method, path, body, **options)
            if answer.status != 429 or not options.get("pace", True):
                break
            self.sleep(_PAUSE_S)
        if not private:
            self.exchanges.append(answer)
        return answer

    def sleep(self, seconds: float) -> None:
        """Wait, but no longer than the probe runs.

        Raises:
            Closed: The probe is ending.
        """
        if self._site.stopping.wait(seconds):
            raise Closed

    def until(
        self, condition: Callable[[], bool], *, within_s: float = 30.0, every_s: float = 0.3
    ) -> bool:
        """Whether a condition came true in time; what it asks meanwhile is not recorded."""
        deadline = time.monotonic() + within_s
        seen = len(self.exchanges)
        while not (held := condition()) and time.monotonic() < deadline:
            del self.exchanges[seen:]
            self.sleep(every_s)
        return held

    # Machines.

    def create(self, *, name: str | None = "", query: Query | None = None, **fields: Any) -> Answer:
        """Ask for a machine; `config` is completed, see `Ground.config`.

        Args:
            name: None sends none.
            query: Of the request.
            fields: Beside `config` in the body; `raw_config` is sent as it is.

        Raises:
            CannotTell: There are no machines to be had.
        """
        ground = self.ground
        if ground.hopeless:
            raise CannotTell(ground.hopeless.partition("\n")[0])
        config = fields.pop("raw_config", None)
        if config is None:
            config = ground.config(**fields.pop("config", {}))
        body: dict[str, Any] = {"config": config, **fields}
        if name is not None:
            body["name"] = name or ground.name()
        if ground.region:
            body.setdefault("region", ground.region)
        answer = self._create(body, query)
        if answer.status < 300 and isinstance(answer.field("id"), str):
            self.made.append(answer.field("id"))
        return answer

    def _create(self, body: dict[str, Any], query: Query | None) -> Answer:
        """Send it; an app that was just made is not known everywhere for some seconds."""
        for _ in range(_TRIES):
            answer = self.ground.make(
                lambda: self.send("POST", self.machines, body, query=query), "machine"
            )
            if answer.status not in (401, 404) or not self.ground.own:
                break
            self.sleep(_PAUSE_S)
        return answer

    def make(self, **fields: Any) -> Guest:
        """A machine of this check alone; it is destroyed after it.

        Raises:
            CannotTell: There is none to be had.
        """
        answer = self.create(**fields)
        if answer.status >= 300 or not isinstance(answer.field("id"), str):
            self.ground.refused(answer)
            raise CannotTell(f"no machine: create answered {answer.status}: {answer.error}")
        return Guest(self, answer)

    def guest(self) -> Guest:
        """The machine of this area, started; what making it took is not recorded.

        Raises:
            CannotTell: It did not start.
        """
        seen = len(self.exchanges)
        guest = self._site.guest
        state = guest.to(self).get().field("state") if guest else None
        if guest and state in ("stopped", "suspended"):
            guest.to(self).post("start")
            guest.to(self).ready()
        elif guest is None or state != "started":
            guest = self.make(config=KEPT).ready()
            self.made.remove(guest.id)
            self._site.made.append(guest.id)
            self._site.guest = guest
        del self.exchanges[seen:]
        return guest.to(self)

    # Comparisons.

    def same(self, what: str, observed: T, expected: T) -> bool:
        """Expect a value."""
        return self._compare(what, expected, observed, observed == expected)

    def among(self, what: str, observed: object, *expected: object) -> bool:
        """Expect one of several values."""
        words = " or ".join(str(value) for value in expected)
        return self._compare(what, words, observed, observed in expected)

    def contains(self, what: str, observed: str, *texts: str) -> bool:
        """Expect a text that has one of these in it."""
        words = f"contains {' or '.join(repr(text) for text in texts)}"
        return self._compare(what, words, observed, any(text in observed for text in texts))

    def matches(self, what: str, observed: object, pattern: str) -> bool:
        """Expect a text of this form."""
        holds = isinstance(observed, str) and re.fullmatch(pattern, observed) is not None
        return self._compare(what, f"matches {pattern}", observed, holds)

    def true(self, what: str, holds: object, observed: object = None) -> bool:
        """Expect that something holds."""
        shown = bool(holds) if observed is None else observed
        return self._compare(what, "yes", shown, bool(holds))

    def refused(self, answer: Answer, status: int | tuple[int, ...], *texts: str) -> None:
        """Expect an error of this status in Fly's shape, with one of these texts in it."""
        allowed = status if isinstance(status, tuple) else (status,)
        self.among("status", answer.status, *allowed)
        if texts:
            self.contains("error", answer.error, *texts)

    def ok(self, answer: Answer) -> None:
        """Expect `{"ok":true}`."""
        self.same("status", answer.status, 200)
        self.same("ok", answer.field("ok"), True)

    def note(self, what: str, value: object) -> None:
        """Record the answer to something that no source says."""
        self.notes[what] = value

    def note_answer(self, what: str, answer: Answer) -> None:
        """Record status and text of an answer."""
        self.notes[what] = f"{answer.status} {answer.text[:300]}".strip()

    def _compare(self, what: str, expected: Any, observed: Any, holds: bool) -> bool:
        self.comparisons.append(Comparison(what, expected, observed, holds))
        return holds


def shape(value: Any) -> Any:
    """The keys and types of a JSON value, without what it says."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in sorted(value.items())}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__
