"""WebSockets in a cassette: one connection is one interaction, whose body lists its frames."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

import msgspec

from pytest_flymachines._clock import Clock, ReplayClock
from pytest_flymachines.cassettes.jsons import json_value
from pytest_flymachines.cassettes.meaning import Meaning
from pytest_flymachines.cassettes.spelling import without_padding
from pytest_flymachines.cassettes.unknown import names_in, same_but_for_secrets

__all__ = ["FrameSocket", "RecordedSocket", "ReplayedSocket"]

# A thread that only listens must let those that send get on; nobody else waits in replay.
_LISTENER_PAUSE_S = 0.02


class FrameSocket(Protocol):
    """A WebSocket of text frames, as a terminal of cook-agent uses it."""

    def send(self, text: str) -> None:
        """Send one frame."""
        ...

    def receive(self, timeout_s: float) -> str | None:
        """The next frame; None when the server has closed the connection.

        Raises:
            TimeoutError: There was none for `timeout_s` seconds.
        """
        ...

    def close(self) -> None:
        """End the connection."""
        ...


class RecordedSocket:
    """A socket whose frames are noted, with the time of each since the connection was made."""

    def __init__(self, inner: FrameSocket, clock: Clock) -> None:
        self._inner = inner
        self._clock = clock
        self._start = clock.monotonic()
        self._lock = threading.Lock()
        self._frames: list[dict[str, Any]] = []

    def send(self, text: str) -> None:
        """Send one frame."""
        self._note("sent", _value(text))
        self._inner.send(text)

    def receive(self, timeout_s: float) -> str | None:
        """The next frame; None when the server has closed the connection."""
        text = self._inner.receive(timeout_s)
        if text is None:
            self._note("closed", True)
        else:
            self._note("received", _value(text))
        return text

    def close(self) -> None:
        """End the connection."""
        self._inner.close()

    def response(self) -> dict[str, Any]:
        """All frames so far, as the answer to the request that opened the connection."""
        with self._lock:
            body = msgspec.json.encode(self._frames)
        status = {"code": 101, "message": "Switching Protocols"}
        return {"status": status, "headers": {}, "body": {"string": body}}

    def _note(self, what: str, value: Any) -> None:
        with self._lock:
            at_s = round(self._clock.monotonic() - self._start, 6)
            self._frames.append({"at_s": at_s, what: value})


class ReplayedSocket:
    """A socket that gives the recorded frames, each once everything before it was sent.

    Args:
        body: The recorded frames.
        clock: Is told the time that passed.
        miss: Makes the error for a frame that was not recorded, from it and the nearest one.
        rename: Takes ids of machines and secrets out of text.
    """

    def __init__(
        self,
        body: bytes,
        clock: Clock,
        miss: Callable[[Meaning, Meaning | None], Exception],
        rename: Callable[[str], str],
    ) -> None:
        self._frames: list[dict[str, Any]] = msgspec.json.decode(body)
        self._sent = [i for i, frame in enumerate(self._frames) if "sent" in frame]
        self._got = [i for i, frame in enumerate(self._frames) if "sent" not in frame]
        self._sent_count = 0
        self._got_count = 0
        self._now_s = 0.0
        self._clock = clock
        self._miss = miss
        self._rename = rename
        self._changed = threading.Condition()
        self._owner = threading.get_ident()

    def send(self, text: str) -> None:
        """Send one frame.

        Raises:
            CassetteMiss: Another one, or none, was recorded in its place.
        """
        with self._changed:
            self._owner = threading.get_ident()
            wanted = _meaning(self._words(_value(text)))
            left = self._sent[self._sent_count :]
            if not left:
                raise self._miss(wanted, None)
            words = self._words(self._frames[left[0]]["sent"])
            recorded = _meaning(words)
            if not same_but_for_secrets(recorded, wanted, names_in(words)):
                raise self._miss(wanted, recorded)
            self._sent_count += 1
            self._pass_until(self._frames[left[0]]["at_s"])
            self._changed.notify_all()

    def receive(self, timeout_s: float) -> str | None:
        """The next frame; None when the server closed the connection."""
        with self._changed:
            if not self._ready() and threading.get_ident() != self._owner:
                self._changed.wait_for(self._ready, min(timeout_s, _LISTENER_PAUSE_S))
            frame = self._frames[self._got[self._got_count]] if self._ready() else None
            if frame is None or frame["at_s"] > self._now_s + timeout_s:
                self._pass_until(self._now_s + timeout_s)
                raise TimeoutError(f"no frame for {timeout_s:g} s")
            self._pass_until(frame["at_s"])
            if "closed" in frame:
                return None
            self._got_count += 1
            return _text(frame["received"])

    def close(self) -> None:
        """End the connection; nothing to do."""

    def _ready(self) -> bool:
        """Whether everything that was sent before the next frame has been sent."""
        if self._got_count == len(self._got):
            return False
        left = self._sent[self._sent_count :]
        return not left or self._got[self._got_count] < left[0]

    def _pass_until(self, at_s: float) -> None:
        if at_s > self._now_s and isinstance(self._clock, ReplayClock):
            self._clock.advance(at_s - self._now_s)
        self._now_s = max(self._now_s, at_s)

    def _words(self, value: Any) -> str:
        if isinstance(value, dict) and isinstance(data := value.get("data"), str):
            with suppress(ValueError):  # what was typed, in words
                value = {**value, "data": base64.b64decode(data, validate=True).decode()}
        return self._rename(msgspec.json.encode(value, order="deterministic").decode())


def _meaning(words: str) -> Meaning:
    return Meaning("a WebSocket frame", without_padding(words))


def _value(text: str) -> Any:
    """A frame as a JSON value where it is an object, so that it reads well."""
    value = json_value(text.encode("utf-8", "surrogatepass"))
    return text if value is None else value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
