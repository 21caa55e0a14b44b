"""The `http` handler: takes a request to a machine and its answer back.

Sources: https://fly.io/docs/networking/services/ and
https://fly.io/docs/networking/dynamic-request-routing/.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping

from pytest_flymachines.emulator.ids import new_ulid
from pytest_flymachines.emulator.proxy import statics
from pytest_flymachines.emulator.proxy.balancer import Balancer, Reached, Unreachable
from pytest_flymachines.emulator.proxy.compress import Compressing
from pytest_flymachines.emulator.proxy.destination import Destination
from pytest_flymachines.emulator.proxy.directory import Caller
from pytest_flymachines.emulator.proxy.exchange import BaseExchange, Broken, Exchange
from pytest_flymachines.emulator.proxy.headers import (
    Headers,
    Visit,
    first,
    for_machine,
    for_visitor,
)
from pytest_flymachines.emulator.proxy.http1 import IDLE_TIMEOUT_S
from pytest_flymachines.emulator.proxy.leg import Leg
from pytest_flymachines.emulator.proxy.message import Problem, Request, Responder
from pytest_flymachines.emulator.proxy.replay import Replay
from pytest_flymachines.emulator.proxy.replay_cache import Remembered, ReplayCache
from pytest_flymachines.emulator.proxy.routing import Target, Wish, regions
from pytest_flymachines.emulator.proxy.upstream import Connection, Upstream, Upstreams
from pytest_flymachines.emulator.service_config import HttpOptions

__all__ = ["Gateway"]

# What may be sent again when a kept connection has ended; anything else might happen twice.
IDEMPOTENT = (b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE")
NO_OPTIONS = HttpOptions()
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


class Gateway:
    """Takes requests to machines."""

    def __init__(
        self,
        balancer: Balancer,
        upstreams: Upstreams,
        listing: Callable[[str], Mapping[int, str]],
        sign: Callable[[Caller], Headers],
    ) -> None:
        """Make a gateway.

        Args:
            balancer: Chooses the machines.
            upstreams: Connects to them.
            listing: Gives the loopback addresses of an app, by external port.
            sign: Gives the headers that say which machine a request comes from.
        """
        self._balancer = balancer
        self._upstreams = upstreams
        self._listing = listing
        self._sign = sign
        self.replays = ReplayCache()

    async def handle(self, request: Request, responder: Responder, to: Destination) -> None:
        """Take one request to a machine and its answer back.

        Raises:
            Problem: The proxy has to answer itself; nothing was answered yet.
            ConnectionError: The connection to the visitor or into the machine broke later.
        """
        if to.port.force_https and not to.secure:
            raise self._to_https(request, to)
        edge = to.edge or self._balancer.edge
        visit = Visit(
            id=f"{new_ulid()}-{edge}",
            client=request.client,
            port=to.external,
            secure=to.secure,
            region=edge,
            address=to.app.address,
            caller=to.caller,
            version=request.version,
        )
        origin = leg = Leg(wish=_wish(request.headers, to), request=request)
        status = "bypass" if self.replays.may_bypass(request, to) else "miss"
        known = self._remembered(request, to) if status == "miss" else None
        if known:
            leg = origin.shortcut(known.replay, known.excluded)
            self._permit(to, leg)
        while True:
            try:
                reached = await self._reach(leg)
            except Unreachable as failure:
                if known and leg.origin is None:  # the app that replays is the one to ask
                    self.replays.forget(request, to)
                    leg, known = origin, None
                    continue
                if (back := leg.back(failure)) is None:
                    raise Problem(failure.status, str(failure)) from None
                leg = back
                continue
            with reached.slot:
                replay = await self._exchange(leg, reached, responder, visit)
            if replay is None:
                return
            self._note(request, to, leg, replay, reached.target)
            leg = leg.onward(replay, reached.target, status)
            self._permit(to, leg)

    def _remembered(self, request: Request, to: Destination) -> Remembered | None:
        """A cached replay for a request that does not itself say where to go."""
        if first(request.headers, b"fly-force-instance-id"):
            return None
        return self.replays.find(request, to)

    def _note(
        self, request: Request, to: Destination, leg: Leg, replay: Replay, source: Target
    ) -> None:
        """Remember a replay of the app that was addressed, or forget, as the answer says."""
        if replay.cache and replay.cache.invalidate:
            self.replays.forget(request, to)
            return
        if leg.origin is not None or source.machine.app != to.app.name:
            return
        if why := self.replays.learn(request, to, replay, source.machine.id):
            text = f"[PA03] {why}; it is not cached"
            self._balancer.directory.log(to.app.name, source.machine.id, text)

    async def _reach(self, leg: Leg) -> Reached[Connection]:
        timeout_s = leg.replay.timeout_s if leg.replay else None
        try:
            async with asyncio.timeout(timeout_s):
                return await self._balancer.reach(leg.wish, self._connect)
        except TimeoutError:
            text = f"[PR03] nothing could be reached within the replay's timeout of {timeout_s} s"
            raise Unreachable(text, 502, "timeout", leg.wish.instance) from None

    async def _connect(self, target: Target) -> Connection:
        machine_id, port = target.machine.id, target.service.internal_port
        kind: type[Connection] = Upstream
        if _options(target).h2_backend:
            from pytest_flymachines.emulator.proxy.http2_backend import Http2Upstream

            kind = Http2Upstream
        return await self._upstreams.take(kind, (machine_id, port))

    async def _exchange(
        self, leg: Leg, reached: Reached[Connection], responder: Responder, visit: Visit
    ) -> Replay | None:
        target, upstream = reached.target, reached.connection
        options = _options(target)
        upgrade = leg.request.upgrade and not options.h2_backend
        headers = for_machine(leg.request.headers, visit, upgrade=upgrade) + leg.extra
        if visit.caller:
            headers += self._sign(visit.caller)
        if leg.wish.prefer_instance not in ("", target.machine.id):
            missed = leg.wish.prefer_instance.encode("latin-1")
            headers.append((b"fly-preferred-instance-unavailable", missed))
        idle_timeout_s = options.idle_timeout or IDLE_TIMEOUT_S
        responder.limit_idle(idle_timeout_s)
        if options.compress is not False:
            responder = Compressing(responder, leg.request)

        def answered(headers: Headers) -> Headers:
            return for_visitor(headers, visit, target.port)

        directory = self._balancer.directory
        if await statics.answer(directory, target.machine, leg.request, responder, answered):
            self._upstreams.give_back(upstream)
            return None
        while True:
            exchange = _exchange_over(upstream)(
                responder=responder,
                answered=answered,
                idle_timeout_s=idle_timeout_s,
                may_replay=not leg.is_fallback,
            )
            try:
                return await exchange.run(leg.request, headers)
            except Broken as error:
                again = leg.request.method in IDEMPOTENT and leg.request.body.again
                if not upstream.used or not again:
                    raise self._no_answer(target, error) from None
            finally:
                self._upstreams.give_back(upstream)
            try:
                upstream = await self._upstreams.take(type(upstream), upstream.key, fresh=True)
            except OSError as error:
                raise self._no_answer(target, error) from None

    def _no_answer(self, target: Target, error: Exception) -> Problem:
        machine, port = target.machine, target.service.internal_port
        text = f"[PU02] machine {machine.id} did not answer on port {port}: {error}"
        self._balancer.directory.log(machine.app, machine.id, text)
        return Problem(502, text)

    def _permit(self, to: Destination, leg: Leg) -> None:
        """See that a replay stays within organization and private network."""
        name = leg.wish.app
        app = self._balancer.directory.app(name)
        if app is None:
            text = f"[PA04] app {to.app.name} used fly-replay to target app {name}"
            raise Problem(502, f"{text}, which does not exist")
        if (app.org, app.network) != (to.app.org, to.app.network):
            text = f"[PA05] app {to.app.name} used fly-replay to target app {name}"
            raise Problem(502, f"{text}, which is in another organization or network")

    def _to_https(self, request: Request, to: Destination) -> Problem:
        name, _, _ = request.host.rpartition(":")
        name = name or request.host
        if name in LOOPBACK:
            name = self._listing(to.app.name).get(443, name)
        url = f"https://{name}".encode("latin-1") + request.target
        return Problem(301, "use https", [(b"Location", url)])


def _exchange_over(upstream: Connection) -> Callable[..., BaseExchange]:
    if isinstance(upstream, Upstream):
        return functools.partial(Exchange, upstream=upstream)
    from pytest_flymachines.emulator.proxy.http2_backend import Http2Exchange, Http2Upstream

    assert isinstance(upstream, Http2Upstream)
    return functools.partial(Http2Exchange, upstream=upstream)


def _options(target: Target) -> HttpOptions:
    return target.port.http_options or NO_OPTIONS


def _wish(headers: Headers, to: Destination) -> Wish:
    forced = first(headers, b"fly-force-region")
    region = forced or first(headers, b"fly-prefer-region")
    return Wish(
        app=to.app.name,
        port=to.external,
        instance=first(headers, b"fly-force-instance-id"),
        prefer_instance=first(headers, b"fly-prefer-instance-id"),
        regions=regions(region) if region else (),
        only_regions=bool(forced),
        edge=to.edge,
    )
