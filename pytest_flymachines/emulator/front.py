"""The API's front: what happens to every request before and after its handler.

Unknown routes get the plain 404 of Go's server; then come the token, faults asked for, rate
limits, the size of the body; errors take Fly's shape; every answer has a `fly-request-id`.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
import traceback
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from pytest_flymachines.emulator.answers import Problem
from pytest_flymachines.emulator.call import MAX_BODY, Call, Handler
from pytest_flymachines.emulator.emulator import Emulator
from pytest_flymachines.emulator.faults import Cause, Fault, asking
from pytest_flymachines.emulator.ids import new_ulid
from pytest_flymachines.emulator.lifecycle import Life
from pytest_flymachines.emulator.store import StateError

__all__ = ["Front", "read_body"]

SERVER = "Fly/pytest-flymachines"


class Dropped(Exception):
    """End the connection without an answer."""

    def __init__(self, *, reset: bool) -> None:
        self.reset = reset


class Front:
    """The ASGI application of the API port."""

    def __init__(self, emulator: Emulator, routes: Iterable[tuple[str, str, Handler]]) -> None:
        self._emulator = emulator
        self._router = Router(
            [
                Route(path, self._endpoint(handler), methods=[method])
                for method, path, handler in routes
            ],
            default=self._unknown,
            redirect_slashes=False,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        request = Request(scope, receive)
        began = time.perf_counter()
        request_id = f"{new_ulid()}-{self._emulator.region}"
        status = 0

        async def send_on(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] += [
                    (b"fly-request-id", request_id.encode()),
                    (b"server", SERVER.encode()),
                    (b"via", b"1.1 fly.io"),
                ]
            await send(message)

        scope["request_id"] = request_id
        try:
            if self._emulator.latency_s:
                await asyncio.sleep(self._emulator.latency_s)
            self._emulator.hosts.check(request)
            await self._router(scope, receive, send_on)
        except Problem as refusal:
            await refusal.response()(scope, receive, send_on)
        except Dropped as dropped:
            await _drop(scope, reset=dropped.reset)
        except ClientDisconnect:
            pass
        finally:
            self._emulator.requests.request(
                {
                    "method": request.method,
                    "path": request.url.path,
                    "query": request.url.query,
                    "status": status,
                    "duration_ms": round((time.perf_counter() - began) * 1000, 1),
                    "request_id": request_id,
                    "error": scope.get("problem"),
                },
                request.headers,
            )

    def _endpoint(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            try:
                return await self._answer(handler, request)
            except Problem as problem:
                request.scope["problem"] = problem.text
                return problem.response()

        return endpoint

    async def _answer(self, handler: Handler, request: Request) -> Response:
        emulator = self._emulator
        method, path = request.method, request.url.path
        access = emulator.tokens.access(request)
        life = emulator.flyd.life(str(request.path_params.get("machine")))
        faults = emulator.faults.of_request(
            Cause(method, path),
            str(request.path_params.get("app", "")),
            life.machine if life else None,
        )
        await self._before(faults, life)
        emulator.limits.check(method, path)
        call = Call(emulator, request, access, await read_body(request, MAX_BODY))
        try:
            with asking(method, path):
                response = await handler(call)
        except (Problem, ClientDisconnect):
            raise
        except Exception as error:  # noqa: BLE001 - a server answers 500, and says why in its log
            traceback.print_exception(error)
            raise Problem(500, f"internal: {type(error).__name__}") from None
        finally:
            self._keep()
        await self._after(faults)
        return response

    def _keep(self) -> None:
        """What is answered is written first; an answer that cannot be kept is none."""
        try:
            self._emulator.store.flush()
        except StateError as error:
            raise Problem(500, f"internal: {error}") from None

    async def _before(self, faults: list[Fault], life: Life | None) -> None:
        for fault in faults:
            if fault.kind == "delay":
                if fault.when == "before":
                    await asyncio.sleep(fault.delay_s)
            elif fault.kind == "death":
                if life is not None:
                    self._emulator.flyd.kill_later(life, fault.delay_s)
            elif fault.when == "before":
                self._strike(fault)

    async def _after(self, faults: list[Fault]) -> None:
        for fault in faults:
            if fault.kind == "delay" and fault.when == "after":
                await asyncio.sleep(fault.delay_s)
            if fault.kind == "lost":
                raise Dropped(reset=False)
            if fault.when == "after":
                self._strike(fault)

    def _strike(self, fault: Fault) -> None:
        if fault.kind == "status":
            raise Problem(fault.status, fault.body)
        if fault.kind == "reset":
            raise Dropped(reset=True)

    async def _unknown(self, scope: Scope, receive: Receive, send: Send) -> None:
        response: ASGIApp = PlainTextResponse("404 page not found\n", 404)
        await response(scope, receive, send)


async def read_body(request: Request, limit: int) -> bytes:
    """The body of a request.

    Raises:
        Problem: 413 when it is larger than `limit` bytes.
    """
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise Problem(413, "http: request body too large")
        chunks.append(chunk)
    return b"".join(chunks)


async def _drop(scope: Scope, *, reset: bool) -> None:
    transport = scope["state"]["transport"]
    if reset:
        connection: socket.socket = transport.get_extra_info("socket")
        # Linger of zero seconds makes the close a TCP reset.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
    await asyncio.sleep(0)  # so that the server sees that there is nobody to answer
