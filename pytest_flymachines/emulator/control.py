"""The control port: health, shutdown, the request log, faults, forwards, a page to look at."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from pytest_flymachines.emulator.answers import Problem, answer, empty
from pytest_flymachines.emulator.emulator import Emulator
from pytest_flymachines.emulator.faults import Fault, FaultError, parse_fault
from pytest_flymachines.emulator.front import read_body
from pytest_flymachines.emulator.page import POLICY, live_page, login_page
from pytest_flymachines.emulator.proxy import Proxy
from pytest_flymachines.emulator.proxy.tls import TlsUnavailable

__all__ = ["Control"]

T = TypeVar("T")

MAX_BODY = 64 * 1024
MAX_FAULTS = 1000
MAX_FORWARDS = 1000
MAX_LOG = 1024 * 1024


class FaultSpec(msgspec.Struct):
    """A fault in the form of the command line."""

    spec: str


class Forward(msgspec.Struct, frozen=True):
    """Where a forward leads."""

    app: str
    machine: str
    port: int


class Control:
    """The ASGI application of the control port; everything but `/health` needs the token."""

    def __init__(
        self,
        emulator: Emulator,
        proxy: Proxy,
        about: dict[str, Any],
        stop: Callable[[], None],
        disown: Callable[[], None],
    ) -> None:
        self._emulator = emulator
        self._proxy = proxy
        self._about = about
        self._stop = stop
        self._disown = disown
        routes = [
            ("GET", "/health", self._health),
            ("POST", "/shutdown", self._shutdown),
            ("POST", "/disown", self._live_on),
            ("GET", "/requests", self._requests),
            ("DELETE", "/requests", self._forget_requests),
            ("GET", "/faults", self._list_faults),
            ("POST", "/faults", self._add_fault),
            ("DELETE", "/faults", self._remove_faults),
            ("DELETE", "/faults/{id:int}", self._remove_faults),
            ("GET", "/forwards", self._list_forwards),
            ("POST", "/forwards", self._open_forward),
            ("DELETE", "/forwards", self._close_forward),
            ("GET", "/services", self._services),
            ("GET", "/ca.pem", self._ca),
            ("GET", "/machines/{machine}/log", self._machine_log),
            ("GET", "/", self._page),
        ]
        self._router = Router(
            [Route(path, _guarded(handler), methods=[method]) for method, path, handler in routes],
            redirect_slashes=False,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        request = Request(scope, receive)
        try:
            self._emulator.hosts.check(request)
            if scope["path"] != "/health":
                self._emulator.tokens.access(request, control=True)
        except Problem as problem:
            refusal = problem.response()
            if problem.status == 401 and scope["path"] == "/":
                refusal = HTMLResponse(
                    login_page(), 401, headers={"content-security-policy": POLICY}
                )
            await refusal(scope, receive, send)
            return
        await self._router(scope, receive, send)

    async def _health(self, _: Request) -> Response:
        return answer({"ok": True})

    async def _shutdown(self, _: Request) -> Response:
        self._stop()
        return answer({"ok": True}, 202)

    async def _live_on(self, _: Request) -> Response:
        """Outlive the owner: from now on the end of the last machine is the end."""
        self._disown()
        return answer({"ok": True}, 202)

    async def _requests(self, _: Request) -> Response:
        return Response(self._emulator.requests.lines(), media_type="application/x-ndjson")

    async def _forget_requests(self, _: Request) -> Response:
        self._emulator.requests.clear()
        return empty()

    async def _list_faults(self, _: Request) -> Response:
        return answer(self._emulator.faults.all())

    async def _add_fault(self, request: Request) -> Response:
        """A fault as JSON, field by field, or as `{"spec": "<form of the command line>"}`."""
        if len(self._emulator.faults.all()) >= MAX_FAULTS:
            raise Problem(409, f"there are {MAX_FAULTS} faults already; delete some")
        raw = await read_body(request, MAX_BODY)
        if b'"spec"' in raw:
            try:
                fault = parse_fault(_decode(raw, FaultSpec).spec)
            except FaultError as error:
                raise Problem(400, str(error)) from None
        else:
            fault = _decode(raw, Fault)
        self._emulator.faults.add(fault)
        if fault.kind == "death":
            self._emulator.flyd.arrange_deaths(fault.id)
        if fault.kind == "host-failure":
            self._emulator.flyd.hosts.arrange_all(fault.id)
        return answer(fault, 201)

    async def _remove_faults(self, request: Request) -> Response:
        wanted = request.path_params.get("id")
        if not self._emulator.faults.remove(wanted) and wanted is not None:
            raise Problem(404, f"there is no fault {wanted}")
        self._emulator.flyd.hosts.repair()
        return empty()

    async def _list_forwards(self, _: Request) -> Response:
        return answer(self._forwards())

    async def _open_forward(self, request: Request) -> Response:
        forward = _decode(await read_body(request, MAX_BODY), Forward)
        life = self._emulator.flyd.life(forward.machine)
        if life is None or life.machine.app != forward.app:
            raise Problem(404, f"app {forward.app} has no machine {forward.machine}")
        if not 1 <= forward.port <= 65535:
            raise Problem(400, f"port {forward.port} is not between 1 and 65535")
        known = self._proxy.forwards.listing()
        if len(known) >= MAX_FORWARDS and (forward.machine, forward.port) not in known:
            raise Problem(409, f"there are {MAX_FORWARDS} forwards already; delete some")
        host, port = self._proxy.forwards.open(forward.machine, forward.port)
        return answer({"host": host, "port": port}, 201)

    async def _close_forward(self, request: Request) -> Response:
        """End one forward, or without a body all of them."""
        raw = await read_body(request, MAX_BODY)
        wanted = _decode(raw, Forward) if raw else None
        machine, port = (wanted.machine, wanted.port) if wanted else (None, None)
        if not await self._proxy.forwards.close(machine, port) and wanted:
            raise Problem(404, "there is no such forward")
        return empty()

    def _forwards(self) -> list[dict[str, object]]:
        return [
            {"machine": machine, "port": port, "host": host, "local_port": local_port}
            for (machine, port), (host, local_port) in self._proxy.forwards.listing().items()
        ]

    async def _services(self, _: Request) -> Response:
        """`host:port` on this computer of each external port of each app; UDP as `53/udp`."""
        listing: dict[str, dict[str, str]] = {}
        for app, ports in self._proxy.listing().items():
            listing[app] = {str(port): where for port, where in ports.items()}
        for app, ports in self._proxy.udp_listing().items():
            udp = {f"{port}/udp": where for port, where in ports.items()}
            listing[app] = listing.get(app, {}) | udp
        return answer(listing)

    async def _ca(self, _: Request) -> Response:
        """The CA behind the certificates of services with TLS."""
        try:
            pem = await self._proxy.ca_pem()
        except TlsUnavailable as error:
            raise Problem(501, str(error)) from None
        return Response(pem, media_type="application/x-pem-file")

    async def _machine_log(self, request: Request) -> Response:
        """The end of what the main process wrote."""
        machine = self._emulator.store.machines.get(request.path_params["machine"])
        if machine is None:
            raise Problem(404, f"there is no machine {request.path_params['machine']}")
        file = self._emulator.flyd.log_file(machine)
        return Response(_tail(file), media_type="text/plain; charset=utf-8")

    async def _page(self, _: Request) -> Response:
        page = live_page(self._emulator, self._about, self._forwards())
        return HTMLResponse(page, headers={"content-security-policy": POLICY})


def _guarded(
    handler: Callable[[Request], Awaitable[Response]],
) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            return await handler(request)
        except Problem as problem:
            return problem.response()

    return endpoint


def _decode(raw: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Problem(400, str(error)) from None


def _tail(file: Path) -> bytes:
    try:
        with file.open("rb") as source:
            source.seek(max(file.stat().st_size - MAX_LOG, 0))
            return source.read()
    except FileNotFoundError:
        return b""
