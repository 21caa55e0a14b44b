"""One call of the Machines API: from arguments to an answer or an error."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from pytest_flymachines._clock import Clock
from pytest_flymachines._http import (
    ConnectError,
    ConnectTimeout,
    Http,
    Param,
    ProxyError,
    Response,
    TransportError,
)
from pytest_flymachines.api.answers import api_error
from pytest_flymachines.api.calls import EXTENSION, Call
from pytest_flymachines.errors import ApiUnreachable, SettingsError

__all__ = ["TIMEOUT_S", "Caller", "segment"]

TIMEOUT_S = 60.0
NONCE_HEADER = "fly-machine-lease-nonce"

_NOT_SENT = (ConnectError, ConnectTimeout, ProxyError)


class Caller:
    """What the groups of calls share: each group is a subclass, the client is all of them."""

    _http: Http
    _clock: Clock

    def _call(
        self,
        method: str,
        path: str,
        call: Call,
        *,
        params: Mapping[str, Param | Sequence[str]] | None = None,
        json: Any = None,
        content: bytes | None = None,
        nonce: str | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Response:
        """Send one call and return its answer, which is a 2xx.

        Args:
            method: HTTP method.
            path: Path from `/v1` on, percent-encoded.
            call: What the transports should know of it.
            params: Query; None leaves a key out, a sequence repeats it.
            json: Body to be encoded.
            content: Body that is JSON already.
            nonce: Of the lease that is held.
            timeout_s: Seconds without progress after which it fails.

        Raises:
            ApiError: Any other status.
            ApiUnreachable: No answer.
        """
        headers = {NONCE_HEADER: nonce} if nonce else {}
        if content is not None:
            headers["content-type"] = "application/json"
        try:
            response = self._http.request(
                method,
                path,
                params=params,
                headers=headers,
                json=json,
                content=content,
                timeout_s=timeout_s,
                extensions={EXTENSION: call},
            )
        except TransportError as error:
            # without a cause: the text has it all, and httpcore's frames are a page of noise,
            # in which a tool that shows locals deeply would find the headers
            raise self._unreachable(method, path, error) from None
        if 200 <= response.status_code < 300:
            return response
        raise api_error(method, path, response)

    def _unreachable(self, method: str, path: str, error: TransportError) -> ApiUnreachable:
        ambiguous = method != "GET" and not isinstance(error, _NOT_SENT)
        hint = ""
        if "_api.internal" in self._http.base_url:
            hint = "; _api.internal exists only within Fly's private network (WireGuard, a machine)"
        elif ambiguous:
            hint = "; it may have taken effect all the same"
        return ApiUnreachable(
            f"{method} {path} at {self._http.base_url} got no answer "
            f"({type(error).__name__}: {error}){hint}",
            ambiguous,
        )


@functools.lru_cache(maxsize=1024)
def segment(value: str) -> str:
    """A name or id as one segment of a path.

    Raises:
        SettingsError: It is empty, or would lead to another path.
    """
    if value in ("", ".", ".."):
        raise SettingsError(f"{value!r} is no name or id of the Machines API")
    return quote(value, safe="")
