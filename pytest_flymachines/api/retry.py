"""Repeating requests that failed, where a repeat cannot do harm."""

from __future__ import annotations

import contextlib
import email.utils
import os
import threading
import time
from types import ModuleType

from pytest_flymachines._http import (
    ByteStream,
    ConnectError,
    ConnectTimeout,
    NetworkError,
    ProxyError,
    RemoteProtocolError,
    Request,
    Response,
    TimeoutException,
    Transport,
    TransportError,
)
from pytest_flymachines.api.calls import call_of

__all__ = ["RetryTransport"]

RETRY_S = 60.0
MAX_RETRY_AFTER_S = 30.0
_ATTEMPTS = 7
# A server that is not there mostly stays away: say it within a few seconds.
_CONNECT_ATTEMPTS = 4

_NOT_SENT = (ConnectError, ConnectTimeout, ProxyError)
_BROKEN = (TimeoutException, NetworkError, RemoteProtocolError)

_Outcome = Response | TransportError

# In a child that is forked during another thread's import, nobody finishes that import, and the
# child's own waits for it for ever (CPython's module locks). So a fork waits for the import's end.
_importing = threading.Lock()
os.register_at_fork(
    before=_importing.acquire,
    after_in_parent=_importing.release,
    after_in_child=_importing.release,
)


class RetryTransport(Transport):
    """Sends again what may be sent again, with growing, jittered pauses.

    | failure | repeated |
    |---|---|
    | not sent (refused, name not resolved, no TLS) | every request |
    | 429 | every request, after `Retry-After` if the answer has it |
    | no answer, a broken one, 408, 5xx | GET, and calls that are safe to repeat |

    A create is none of the latter: its caller looks for the machine by its name. A body that
    is sent in pieces cannot be sent twice.
    """

    def __init__(self, inner: Transport, *, retry_s: float = RETRY_S) -> None:
        """Make a retrying transport.

        Args:
            inner: Sends one attempt.
            retry_s: Seconds from the first attempt after which no other one is made.
        """
        self._inner = inner
        self._retry_s = retry_s

    def handle_request(self, request: Request) -> Response:
        """Send; the last answer, or the last error, when nothing helps."""
        outcome = self._try(request)
        if _may_repeat(request, outcome):
            outcome = self._repeat(request, outcome)
        if isinstance(outcome, Response):
            return outcome
        raise outcome

    def close(self) -> None:
        """Close the transport beneath."""
        self._inner.close()

    def _try(self, request: Request) -> _Outcome:
        try:
            response = self._inner.handle_request(request)
            if response.status_code in (408, 429) or response.status_code >= 500:
                response.read()
                response.close()
        except TransportError as error:
            return error
        return response

    def _repeat(self, request: Request, outcome: _Outcome) -> _Outcome:
        call = call_of(request)
        limit_s = self._retry_s if call is None or call.retry_s is None else call.retry_s
        if limit_s <= 0:
            return outcome
        attempts = _stamina().retry_context(
            on=_pause,
            attempts=_ATTEMPTS,
            timeout=limit_s,
            wait_initial=0.25,
            wait_max=8.0,
            wait_jitter=0.5,
        )
        with contextlib.suppress(_RepeatError):
            for attempt in attempts:
                with attempt:
                    if attempt.num > 1:
                        outcome = self._try(request)
                    if _may_repeat(request, outcome):
                        raise _RepeatError(outcome, attempt.num)
        return outcome


def _stamina() -> ModuleType:
    """Imported when it is needed, which is seldom: it takes 40 ms."""
    with _importing:
        import stamina
    return stamina


class _RepeatError(Exception):
    def __init__(self, outcome: _Outcome, attempt: int) -> None:
        super().__init__(outcome, attempt)
        self.outcome = outcome
        self.attempt = attempt


def _may_repeat(request: Request, outcome: _Outcome) -> bool:
    if not isinstance(request.stream, ByteStream):
        return False
    if isinstance(outcome, _NOT_SENT):
        return "CERTIFICATE_VERIFY_FAILED" not in str(outcome)
    if isinstance(outcome, Response) and outcome.status_code == 429:
        return True
    call = call_of(request)
    if not (request.method == "GET" if call is None else call.repeat_safe):
        return False
    return (
        outcome.status_code == 408 or outcome.status_code >= 500
        if isinstance(outcome, Response)
        else isinstance(outcome, _BROKEN)
    )


def _pause(error: Exception) -> bool | float:
    """Whether to go on, or the seconds until then; the hook that stamina asks."""
    if not isinstance(error, _RepeatError):
        return False
    if isinstance(error.outcome, Response):
        return _retry_after_s(error.outcome) or True
    return not isinstance(error.outcome, _NOT_SENT) or error.attempt < _CONNECT_ATTEMPTS


def _retry_after_s(response: Response) -> float:
    """Seconds that the answer asks for; 0 if it does not (RFC 9110, section 10.2.3)."""
    value = response.headers.get("retry-after", "").strip()
    if value.isdecimal():
        seconds = float(value)
    else:
        date = email.utils.parsedate_tz(value)
        seconds = email.utils.mktime_tz(date) - time.time() if date else 0.0
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S)
