"""One request to the API: what a handler sees of it, and how handlers are registered."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from pytest_flymachines.emulator.answers import Problem
from pytest_flymachines.emulator.auth import Access
from pytest_flymachines.emulator.bodies import decode
from pytest_flymachines.emulator.lifecycle import Life
from pytest_flymachines.emulator.model import App

if TYPE_CHECKING:
    from pytest_flymachines.emulator.emulator import Emulator

__all__ = ["APP", "MACHINE", "MAX_BODY", "Call", "Handler", "Routes", "boolean", "integer"]

T = TypeVar("T")

APP = "/v1/apps/{app}"
MACHINE = APP + "/machines/{machine}"
MAX_BODY = 4 * 1024 * 1024
INTEGER = re.compile(r"[+-]?[0-9]{1,18}")


@dataclass
class Call:
    """A request that was let in."""

    emulator: Emulator
    request: Request
    access: Access
    raw: bytes = b""

    def param(self, name: str) -> str:
        """A part of the path."""
        return str(self.request.path_params[name])

    def query(self, name: str, default: str = "") -> str:
        """A query parameter."""
        return self.request.query_params.get(name, default)

    def header(self, name: str) -> str:
        """A request header, or an empty string."""
        return self.request.headers.get(name, "")

    def body(self, kind: type[T], go_type: str, *, keep_nulls: bool = False) -> T:
        """The body, decoded; see `bodies.decode`."""
        return decode(self.raw, kind, go_type, keep_nulls=keep_nulls)

    def app(self) -> App:
        """The app of the path.

        Raises:
            Problem: 404, or 403 when the token is for another app.
        """
        name = self.param("app")
        if self.access.app not in (None, name):
            raise Problem(403, "unauthorized")
        app = self.emulator.store.apps.get(name)
        if app is None:
            reads_app = self.request.method == "GET" and "machine" not in self.request.path_params
            # fly-go compares the text of the one, the documentation shows the other.
            raise Problem(404, "app not found" if reads_app else f'Could not find App "{name}"')
        return app

    def life(self) -> Life:
        """The machine of the path.

        Raises:
            Problem: 404, also for a machine of another app; 403.
        """
        app = self.app()
        life = self.emulator.flyd.life(self.param("machine"))
        if life is None or life.machine.app != app.name:
            raise Problem(404, "not_found: machine not found")
        return life

    def live(self) -> Life:
        """The machine of the path, to act on.

        Raises:
            Problem: 404, also when it is destroyed; 403; 503 when its host does not answer.
        """
        life = self.life()
        if life.machine.state == "destroyed":
            raise Problem(404, "not_found: machine not found")
        if life.machine.host_status != "ok":
            raise Problem(503, f"unavailable: host of machine {life.machine.id} does not answer")
        return life


Handler = Callable[[Call], Awaitable[Response]]


@dataclass
class Routes:
    """The handlers of one concept, by method and path."""

    entries: list[tuple[str, str, Handler]] = field(default_factory=list)

    def on(self, method: str, *paths: str) -> Callable[[Handler], Handler]:
        """Register a handler for a method on one or more paths."""

        def register(handler: Handler) -> Handler:
            self.entries.extend((method, path, handler) for path in paths)
            return handler

        return register

    def __iter__(self) -> Iterator[tuple[str, str, Handler]]:
        return iter(self.entries)


def boolean(text: str, *, where: str) -> bool:
    """A boolean of a query, as Go reads it; an empty text is false.

    Raises:
        Problem: 400.
    """
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("", "0", "f", "F", "false", "FALSE", "False"):
        return False
    raise Problem(400, f'invalid {where}: strconv.ParseBool: parsing "{text}": invalid syntax')


def integer(text: str, *, where: str = "") -> int:
    """An integer of a query, as Go reads it.

    Args:
        text: What was given.
        where: Named in the error, if Go's server does.

    Raises:
        Problem: 400.
    """
    if not INTEGER.fullmatch(text):
        named = f"invalid {where}: " if where else ""
        raise Problem(400, f'{named}strconv.Atoi: parsing "{text}": invalid syntax')
    return int(text)
