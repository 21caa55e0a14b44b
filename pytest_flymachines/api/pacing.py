"""Keeping within Fly's rate limits, over all processes of a run together."""

from __future__ import annotations

import threading
from pathlib import Path

import msgspec

from pytest_flymachines._clock import Clock, SystemClock
from pytest_flymachines._http import Request, Response, Transport
from pytest_flymachines.api.calls import Call, call_of

__all__ = ["PacingTransport"]

# (requests per second, burst), counted per action and machine, for create per app
# (https://fly.io/docs/machines/api/working-with-machines-api/#rate-limits). For lists nothing
# is stated, so they count as any other action.
_LIMIT = (1.0, 3)
_LIMITS = {"get": (5.0, 10)}

# Requests that leave a second apart may arrive a little less than that apart.
JITTER_S = 0.05

_Slots = dict[str, float]


class PacingTransport(Transport):
    """Sends each call of the Machines API when Fly's limits allow it.

    A token bucket for each action and machine. With a directory its state is a file there,
    under a lock, and all processes that use the directory share the limits.
    """

    def __init__(
        self, inner: Transport, *, directory: Path | None = None, clock: Clock | None = None
    ) -> None:
        self._inner = inner
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._slots: _Slots = {}
        self._file: Path | None = None
        if directory is not None:
            from filelock import FileLock

            directory.mkdir(parents=True, exist_ok=True)
            self._file = directory / "pace.json"
            self._file_lock = FileLock(directory / "pace.lock")

    def handle_request(self, request: Request) -> Response:
        """Wait for the call's turn, unless it is urgent; then send it."""
        call = call_of(request)
        if call is not None:
            wait_s = self._reserve(call)
            # it counts, so that others come later; should Fly refuse it, it is sent again
            self._clock.sleep(0.0 if call.urgent else wait_s)
        return self._inner.handle_request(request)

    def close(self) -> None:
        """Close the transport beneath."""
        self._inner.close()

    def _reserve(self, call: Call) -> float:
        """Take the next free slot; seconds until it comes."""
        if self._file is None:
            with self._lock:
                return _take(self._slots, call, self._clock.monotonic())
        with self._file_lock:
            now = self._clock.monotonic()
            slots = _load(self._file)
            wait_s = _take(slots, call, now)
            current = {key: due for key, due in slots.items() if due > now}
            self._file.write_bytes(msgspec.json.encode(current))
        return wait_s


def _take(slots: _Slots, call: Call, now: float) -> float:
    """Book one request: `slots` says when each bucket will be full again (the GCRA algorithm)."""
    per_second, burst = _LIMITS.get(call.action, _LIMIT)
    interval_s = 1 / per_second
    key = f"{call.action} {call.scope}"
    full = max(slots.get(key, now), now)
    slots[key] = full + interval_s
    wait_s = full - now - interval_s * (burst - 1)
    return wait_s + JITTER_S if wait_s > 1e-6 else 0.0


def _load(file: Path) -> _Slots:
    try:
        return msgspec.json.decode(file.read_bytes(), type=_Slots)
    except (FileNotFoundError, msgspec.DecodeError):  # none yet, or a writer was killed
        return {}
