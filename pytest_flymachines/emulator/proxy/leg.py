"""One leg of a request's way: to a machine, by replay to another, by fallback back again.

Source: https://fly.io/docs/networking/dynamic-request-routing/.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

from pytest_flymachines.emulator.proxy.balancer import Unreachable
from pytest_flymachines.emulator.proxy.headers import Headers
from pytest_flymachines.emulator.proxy.message import Problem, Request
from pytest_flymachines.emulator.proxy.replay import Replay, Transform
from pytest_flymachines.emulator.proxy.routing import Target, Wish, regions

__all__ = ["Leg"]

MAX_REPLAYS = 10


@dataclass(frozen=True, kw_only=True)
class Leg:
    """Where a request is being taken.

    Attributes:
        wish: Where to.
        request: What to send.
        extra: Headers to add.
        began: When, by the monotonic clock.
        replay: What led here, if anything.
        source: The machine that asked for it.
        origin: The leg that led to that machine.
        replays: How many there were.
        is_fallback: A replay has failed, and this is its fallback, which may not replay.
    """

    wish: Wish
    request: Request
    extra: Headers = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    replay: Replay | None = None
    source: Target | None = None
    origin: Leg | None = None
    replays: int = 0
    is_fallback: bool = False

    def onward(self, replay: Replay, source: Target, status: str = "miss") -> Leg:
        """The leg that a machine's answer asks for.

        Args:
            replay: What it answered.
            source: That machine.
            status: Why the cache of replays has not led there at once.

        Raises:
            Problem: It cannot be done.
        """
        if not self.request.body.again:
            raise Problem(502, "[PA01] cannot replay: the request's body is larger than 1 MB")
        if self.replays >= MAX_REPLAYS:
            text = f"[PA02] fly-replay was returned more than {MAX_REPLAYS} times, stopping here"
            raise Problem(502, text)
        own = source.machine
        wish = self._replayed(replay, frozenset((own.id,)) if replay.elsewhere else frozenset())
        facts = {
            "instance": own.id,
            "region": own.region,
            "t": str(time.time_ns() // 1000),
            "state": replay.state,
        }
        return Leg(
            wish=wish,
            request=_transformed(self.request, replay.transform),
            extra=[
                (b"fly-replay-src", _fields(facts)),
                (b"fly-replay-cache-status", status.encode()),
            ],
            replay=replay,
            source=source,
            origin=self,
            replays=self.replays + 1,
        )

    def shortcut(self, replay: Replay, excluded: str) -> Leg:
        """The leg that a remembered replay stands for.

        Args:
            replay: What a machine answered to an earlier request.
            excluded: That machine, if the replay was to lead elsewhere.
        """
        return replace(
            self,
            wish=self._replayed(replay, frozenset(filter(None, (excluded,)))),
            extra=[(b"fly-replay-cache-status", b"hit")],
        )

    def _replayed(self, replay: Replay, exclude: frozenset[str]) -> Wish:
        return Wish(
            app=replay.app or self.wish.app,
            port=self.wish.port,
            instance=replay.instance,
            prefer_instance=replay.prefer_instance,
            regions=regions(replay.region) if replay.region else (),
            only_regions=bool(replay.region),
            exclude=exclude,
            edge=self.wish.edge,
        )

    def back(self, failure: Unreachable) -> Leg | None:
        """The leg back to the machine that asked for this one, if it named a fallback."""
        replay, source, origin = self.replay, self.source, self.origin
        if not replay or not source or not origin or not replay.fallback:
            return None
        own = source.machine.id
        forced = replay.fallback == "force_self"
        facts = {
            "instance": self.wish.instance or failure.machine_id,
            "app": self.wish.app,
            "region": replay.region,
            "replay_source": own,
            "reason": failure.reason,
            "elapsed_ms": str(round((time.monotonic() - self.began) * 1000)),
        }
        return replace(
            origin,
            wish=Wish(
                app=origin.wish.app,
                port=origin.wish.port,
                instance=own if forced else "",
                prefer_instance="" if forced else own,
            ),
            extra=[*origin.extra, (b"fly-replay-failed", _fields(facts))],
            replay=None,
            is_fallback=True,
        )


def _transformed(request: Request, change: Transform) -> Request:
    named = [*change.delete_headers, *(header.name for header in change.set_headers)]
    gone = {name.lower().encode("latin-1") for name in named}
    headers = [(name, value) for name, value in request.headers if name.lower() not in gone]
    headers += [
        (header.name.encode("latin-1"), header.value.encode("latin-1"))
        for header in change.set_headers
    ]
    target = change.path.encode("latin-1") or request.target
    return replace(request, target=target, headers=headers)


def _fields(facts: dict[str, str]) -> bytes:
    return ";".join(f"{key}={value}" for key, value in facts.items() if value).encode("latin-1")
