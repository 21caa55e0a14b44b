"""Raw requests to the API and raw answers, at the pace that Fly allows."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_flymachines import __version__
from pytest_flymachines._http import Http, Param, PoolTransport, TransportError
from pytest_flymachines.api.affinity import AffinityTransport
from pytest_flymachines.api.calls import EXTENSION, Call
from pytest_flymachines.api.pacing import PacingTransport
from pytest_flymachines.api.tokens import authorization

__all__ = ["Answer", "CannotTell", "NoAnswer", "Query", "Wire"]

_MACHINE = re.compile(r"^/v1/apps/[^/]+/machines/(?P<id>[^/]+)(?:/(?P<action>[^/]+))?")
_APP = re.compile(r"^/v1/apps/(?P<app>[^/]+)")

Query = Mapping[str, Param | Sequence[Param]]


class CannotTell(Exception):
    """A check could not be carried out; the text says why."""


class NoAnswer(CannotTell):
    """The server did not answer, or not in HTTP."""


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        method: Of the request.
        path: Of the request, with its query.
        sent: Body of the request, as text.
        status: HTTP status.
        headers: Of the answer.
        text: Body of the answer.
        seconds: From request to the end of the answer.
    """

    method: str
    path: str
    sent: str
    status: int
    headers: Mapping[str, str]
    text: str
    seconds: float

    @property
    def json(self) -> Any:
        """The body decoded; None if it is no JSON."""
        try:
            return json.loads(self.text)
        except ValueError:
            return None

    @property
    def error(self) -> str:
        """The text of an error, or the whole body."""
        body = self.json
        if isinstance(body, dict):
            return str(body.get("message") or body.get("error") or self.text)
        return self.text

    def field(self, *names: str | int) -> Any:
        """A value within the JSON body; None where there is none."""
        value = self.json
        for name in names:
            if isinstance(value, dict) and isinstance(name, str):
                value = value.get(name)
            elif isinstance(value, list) and isinstance(name, int) and -1 <= name < len(value):
                value = value[name] if value else None
            else:
                return None
        return value


class Wire:
    """One server, one token, many threads."""

    def __init__(self, base_url: str, token: str) -> None:
        self._pool = PoolTransport()
        quick = AffinityTransport(self._pool)
        agent = {"user-agent": f"pytest-flymachines-probe/{__version__}"}
        self._quick = Http(quick, base_url, agent)
        self._paced = Http(PacingTransport(quick), base_url, agent)
        self._authorization = authorization(token)

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    def visit(self, url: str, path: str = "/", headers: Mapping[str, str] | None = None) -> Answer:
        """Ask a service of a machine, as any visitor does: without the token.

        Args:
            url: Base URL of the proxy in front of the machines.
            path: Below it.
            headers: Of the request; `host` names the app where the URL does not.

        Raises:
            NoAnswer: There was none.
        """
        began = time.monotonic()
        try:
            response = Http(self._pool, url).request("GET", path, headers=headers, timeout_s=30.0)
        except TransportError as error:
            raise NoAnswer(f"GET {path}: {type(error).__name__}: {error}") from None
        shown = dict(response.headers)
        text = response.content.decode("utf-8", "replace")
        seconds = time.monotonic() - began
        return Answer("GET", path, "", response.status_code, shown, text, seconds)

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Query | None = None,
        headers: Mapping[str, str] | None = None,
        auth: str | None = None,
        pace: bool = True,
        timeout_s: float = 75.0,
    ) -> Answer:
        """Send one request.

        Args:
            method: HTTP method.
            path: From `/v1` on, percent-encoded.
            body: JSON, or bytes that are sent as they are.
            query: A sequence repeats its key.
            headers: More headers.
            auth: In place of the token's `Authorization`; empty sends none.
            pace: Wait until Fly's rate limits allow it.
            timeout_s: Seconds without progress after which there is no answer.

        Raises:
            NoAnswer: There was none.
        """
        auth = self._authorization if auth is None else auth
        sent = dict(headers or {}) | ({"authorization": auth} if auth else {})
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        if content is not None:
            sent["content-type"] = "application/json"
        http = self._paced if pace else self._quick
        began = time.monotonic()
        try:
            response = http.request(
                method,
                path,
                params=query,
                headers=sent,
                content=content,
                timeout_s=timeout_s,
                extensions={EXTENSION: _call(method, path)},
            )
        except TransportError as error:
            raise NoAnswer(f"{method} {path}: {type(error).__name__}: {error}") from None
        asked = response.request.url.raw_path.decode("ascii")
        return Answer(
            method,
            asked,
            (content or b"").decode("utf-8", "replace"),
            response.status_code,
            dict(response.headers),
            response.content.decode("utf-8", "replace"),
            time.monotonic() - began,
        )


def _call(method: str, path: str) -> Call:
    """What the pace is counted by: the action and the machine, else the app."""
    if machine := _MACHINE.match(path):
        action = machine["action"] or {"GET": "get", "POST": "update"}.get(method, "destroy")
        return Call(action if action == "get" else f"{method} {action}", machine["id"])
    app = _APP.match(path)
    return Call(f"{method} {path.rpartition('/')[2]}", app["app"] if app else "")
