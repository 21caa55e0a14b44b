"""Requests to the agent in one machine, and its answers or errors."""

from __future__ import annotations

import base64
import contextlib
import errno
import ipaddress
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from pytest_flymachines._clock import Clock
from pytest_flymachines._http import (
    URL,
    ConnectError,
    ConnectTimeout,
    Headers,
    Http,
    Response,
    Transport,
    TransportError,
)
from pytest_flymachines.errors import (
    AgentUnavailable,
    ApiError,
    Conflict,
    NotFound,
    SandboxFileError,
    file_error,
)

__all__ = ["AgentClient", "Content"]

TIMEOUT_S = 60.0
RETRY_PAUSES_S = (0.1, 0.5)

Content = bytes | Callable[[], Iterable[bytes]]


class AgentClient:
    """Sends requests to one machine's agent. Thread-safe.

    Attributes:
        machine_id: The machine.
        base_url: Scheme, host and port of the agent or of the proxy before it.
        prefix: Path of the machine, to which the paths of requests are appended.
        headers: Sent with every request.
        remote: Whether bytes leave this computer, so that compressing them may pay.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        base_url: str,
        host: str | None,
        app: str,
        machine_id: str,
        token: str | None,
        clock: Clock,
    ) -> None:
        self.base_url = base_url
        self.prefix = f"/v1/apps/{app}/machines/{machine_id}"
        self.remote = not _is_loopback(URL(base_url).host)
        # httpx.Headers hides the token in its repr, also where a test's locals are shown
        self.headers = Headers(
            {
                **({"host": host} if host else {}),
                **({"authorization": f"Bearer {token}"} if token else {}),
                "fly-force-instance-id": machine_id,
                "accept-encoding": "gzip" if self.remote else "identity",
            }
        )
        self.machine_id = machine_id
        self._clock = clock
        self._http = Http(transport, base_url, self.headers)

    def __repr__(self) -> str:
        return f"<AgentClient {self.base_url}{self.prefix}>"

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content: Content | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = TIMEOUT_S,
        again: bool = True,
    ) -> bytes:
        """Send a request and give the body of its answer.

        Args:
            method: HTTP method.
            path: Below the machine's, such as `/agent/health`.
            body: Sent as JSON.
            content: Body as it is; a function gives it anew for each try, also for those
                of the transports beneath.
            headers: Beside the usual ones.
            timeout_s: Seconds without progress after which the request has failed.
            again: Sending it twice does no harm, so it is repeated when the connection drops.

        Raises:
            SandboxFileError: A system call failed in the machine.
            BrokenPipeError: A process does not read its stdin any more.
            NotFound: The agent knows no process or other thing of this name.
            ApiError: Any other refusal of the agent.
            AgentUnavailable: No answer from the agent.
        """

        def send() -> Response:
            response = self._http.request(
                method,
                self.prefix + path,
                json=body,
                content=_Anew(content) if callable(content) else content,
                headers=headers,
                timeout_s=timeout_s,
            )
            self._check(method, path, response)
            return response

        return self._persist(send, method, path, again).content

    @contextlib.contextmanager
    def stream(self, path: str, body: Any) -> Iterator[Response]:
        """POST, and leave the answer's body to be read with `iter_bytes`.

        Raises:
            AgentUnavailable: No answer from the agent.
            TransportError: The connection broke while the body was read.
        """
        with contextlib.ExitStack() as stack:

            def send() -> Response:
                response = stack.enter_context(
                    self._http.stream("POST", self.prefix + path, json=body, timeout_s=TIMEOUT_S)
                )
                if response.status_code != 200:
                    response.read()
                    self._check("POST", path, response)
                return response

            yield self._persist(send, "POST", path, True)

    def pause(self, attempt: int) -> bool:
        """Wait before another try; false when there were enough of them."""
        if attempt >= len(RETRY_PAUSES_S):
            return False
        self._clock.sleep(RETRY_PAUSES_S[attempt])
        return True

    def unavailable(self, what: str, why: object) -> AgentUnavailable:
        """The error for an agent that does not answer."""
        return AgentUnavailable(
            f"cook-agent on machine {self.machine_id} did not answer {what} at "
            f"{self.base_url}: {why}. Whether the machine still runs says `Sandbox.status()`; "
            "the agent's log is /opt/pytest-flymachines/agent.log in the machine"
        )

    def _persist(
        self, send: Callable[[], Response], method: str, path: str, again: bool
    ) -> Response:
        attempt = 0
        while True:
            try:
                return send()
            except TransportError as error:
                # what was never sent can always be sent again
                harmless = again or isinstance(error, ConnectError | ConnectTimeout)
                if not harmless or not self.pause(attempt):
                    raise self.unavailable(f"{method} {path.partition('?')[0]}", error) from error
                attempt += 1

    def _check(self, method: str, path: str, response: Response) -> None:
        if response.status_code < 400:
            return
        body = _json_object(response)
        what = f"{method} {path.partition('?')[0]}"
        if body is None:
            why = f"the answer was {response.status_code}: {response.text.strip()[:500]!r}"
            raise self.unavailable(what, why)
        if response.status_code == 401:
            raise self.unavailable(
                what, "it refuses the token, which is that of another machine or run"
            )
        message = str(body.get("error", ""))
        if isinstance(number := body.get("errno"), int):
            raise _system_error(number, body.get("path", ""), message)
        kind = {404: NotFound, 409: Conflict}.get(response.status_code, ApiError)
        path = f"{self.prefix}{path.partition('?')[0]}"
        raise kind(method, path, response.status_code, response.text, message=message)


class _Anew:
    """A body that can be sent more than once; httpx refuses to read a generator again."""

    def __init__(self, content: Callable[[], Iterable[bytes]]) -> None:
        self._content = content

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._content())


def _json_object(response: Response) -> dict[str, Any] | None:
    """The body, if it is the agent's and not some proxy's."""
    if not response.headers.get("content-type", "").startswith("application/json"):
        return None
    try:
        value = msgspec.json.decode(response.content)
    except msgspec.DecodeError:
        return None
    return value if isinstance(value, dict) else None


def _system_error(number: int, path: Any, message: str) -> BrokenPipeError | SandboxFileError:
    if number == errno.EPIPE:
        return BrokenPipeError(number, message)
    if isinstance(path, dict):
        path = base64.b64decode(path.get("base64", "")).decode("utf-8", "surrogateescape")
    detail = "" if message == os.strerror(number) else message
    return file_error(number, str(path), detail)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
