"""A visitor's connection: through the handlers of its port, into a machine.

Source: https://fly.io/docs/networking/services/#connection-handlers.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from dataclasses import replace

from pytest_flymachines.emulator.proxy import pg_tls
from pytest_flymachines.emulator.proxy.balancer import Balancer, Unreachable
from pytest_flymachines.emulator.proxy.destination import Destination, by_host, by_port
from pytest_flymachines.emulator.proxy.gateway import Gateway
from pytest_flymachines.emulator.proxy.headers import first
from pytest_flymachines.emulator.proxy.http1 import (
    HEAD_TIMEOUT_S,
    IDLE_TIMEOUT_S,
    Http1,
    Passthrough,
)
from pytest_flymachines.emulator.proxy.message import Problem, Request, Responder
from pytest_flymachines.emulator.proxy.proxy_proto import header
from pytest_flymachines.emulator.proxy.routing import Target, Wish
from pytest_flymachines.emulator.proxy.tls import Tls, TlsUnavailable
from pytest_flymachines.emulator.proxy.tunnel import tunnel
from pytest_flymachines.emulator.proxy.wire import Wire, connected, send_at_once

__all__ = ["Visitors"]

HANDSHAKE_S = 10.0
# Without the `http` handler HTTP/2 goes to the program as it is.
ALPN = ("h2", "http/1.1")


class Visitors:
    """Serves connections that were accepted."""

    def __init__(self, gateway: Gateway, balancer: Balancer, tls: Tls) -> None:
        """Make one for all listeners.

        Args:
            gateway: For the `http` handler.
            balancer: For connections without it.
            tls: For the `tls` and `pg_tls` handlers.
        """
        self._gateway = gateway
        self._balancer = balancer
        self._directory = balancer.directory
        self._tls = tls

    async def serve_front(self, visitor: socket.socket) -> None:
        """Serve a connection to the front, which goes by the `Host` of each request."""
        wire = await connected(visitor, half_open=True)
        await Http1(wire).serve(self._by_host, self._not_http)

    async def serve(
        self, visitor: socket.socket, app: str, external: int, *, flycast: str = ""
    ) -> None:
        """Serve a connection to an external port of an app.

        Args:
            visitor: The connection.
            app: Name of the app.
            external: The port.
            flycast: The private address of the app at which it came in, if one.
        """
        caller = self._directory.caller(visitor.getpeername()[0]) if flycast else None

        def destination(instance: str = "") -> Destination:
            found = by_port(self._directory, app, external, instance)
            if not caller:
                return found
            return replace(found, app=replace(found.app, address=flycast), caller=caller)

        try:
            to = destination()
            wire = await self._unwrapped(visitor, to)
        except (Problem, TlsUnavailable) as problem:
            self._directory.log(app, "", f"port {external}: {problem}")
            visitor.close()
            return
        except OSError as error:  # the handshake failed: of no interest to anyone but the visitor
            self._directory.log(app, "", f"[PT04] port {external}: {error}")
            return
        if "http" not in to.handlers:
            await self._pass_through(wire, to)
            return

        async def handle(request: Request, responder: Responder) -> None:
            instance = first(request.headers, b"fly-force-instance-id")
            await self._gateway.handle(request, responder, destination(instance))

        if _is_http2(wire):
            from pytest_flymachines.emulator.proxy.http2 import Http2

            await Http2(wire).serve(handle)
            return
        options = to.port.http_options
        timeout_s = (options.headers_read_timeout if options else None) or HEAD_TIMEOUT_S
        await Http1(wire, head_timeout_s=timeout_s).serve(handle)

    async def _by_host(self, request: Request, responder: Responder) -> None:
        instance = first(request.headers, b"fly-force-instance-id")
        to = by_host(self._directory, request.host, instance)
        if "http" not in to.handlers:
            text = f"port {to.external} has no http handler: open a new connection for it"
            raise Problem(421, text)
        await self._gateway.handle(request, responder, to)

    def _not_http(self, request: Request) -> Passthrough | None:
        """What to do with a connection whose first request is for a port without `http`."""
        try:
            to = by_host(self._directory, request.host)
        except Problem:
            return None
        if "http" in to.handlers:
            return None
        return lambda wire, head: self._pass_through(wire, to, head)

    async def _unwrapped(self, visitor: socket.socket, to: Destination) -> Wire:
        """The connection with TLS taken off, if its port has a handler for that."""
        handlers = to.handlers
        if "tls" not in handlers and "pg_tls" not in handlers:
            return await connected(visitor, half_open="http" not in handlers)
        try:
            send_at_once(visitor)
            context = await self._context(to)
            if "pg_tls" in handlers:
                async with asyncio.timeout(HANDSHAKE_S):
                    await pg_tls.negotiate(visitor)
        except BaseException:
            visitor.close()
            raise
        loop = asyncio.get_running_loop()
        _, wire = await loop.connect_accepted_socket(
            Wire, visitor, ssl=context, ssl_handshake_timeout=HANDSHAKE_S
        )
        return wire

    async def _context(self, to: Destination) -> ssl.SSLContext:
        alpn = () if "pg_tls" in to.handlers else ALPN
        return await self._tls.context(to.port.tls_options, alpn)

    async def _pass_through(self, wire: Wire, to: Destination, head: bytes = b"") -> None:
        """Connect a visitor to a machine without looking at the bytes."""
        task = asyncio.current_task()
        assert task is not None
        wire.on_lost = task.cancel
        try:
            reached = await self._balancer.reach(
                Wish(app=to.app.name, port=to.external, edge=to.edge), self._connect
            )
            with reached.slot:
                greeting = header(wire.transport, to) if "proxy_proto" in to.handlers else b""
                await tunnel(
                    wire,
                    reached.connection,
                    greeting=greeting + head,
                    idle_timeout_s=IDLE_TIMEOUT_S,
                )
        except Unreachable:
            pass  # in the log; there is no other way to tell the visitor than to hang up
        finally:
            wire.on_lost = None
            wire.abort()

    async def _connect(self, target: Target) -> Wire:
        machine_id, port = target.machine.id, target.service.internal_port
        return await connected(await self._directory.connect(machine_id, port), half_open=True)


def _is_http2(wire: Wire) -> bool:
    tls = wire.transport.get_extra_info("ssl_object")
    return tls is not None and tls.selected_alpn_protocol() == "h2"
