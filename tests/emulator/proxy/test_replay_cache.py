from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.emulator.fidelity import shows
from tests.emulator.proxy.programs import Seen, http, mirror
from tests.emulator.proxy.world import HTTP, Program, World, service

JSON = "application/vnd.fly.replay+json"


class Router:
    """A program that replays every request to machine `t`, and counts them."""

    def __init__(
        self,
        world: World,
        headers: dict[str, str],
        target: Program | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        self.asked = 0
        self.headers = headers
        self.body = b""
        services = [service({**HTTP, "http_options": options or {}})]
        world.add("r", http(self._answer), services=services)
        world.add("t", target or mirror("t"), region="fra", services=services)

    def _answer(self, seen: Seen) -> tuple[int, dict[str, str], bytes]:
        self.asked += 1
        return 200, {"fly-replay": "instance=t"} | self.headers, self.body


def cached(prefix: str, ttl: str = "60") -> dict[str, str]:
    return {"fly-replay-cache": prefix, "fly-replay-cache-ttl-secs": ttl}


def later(world: World, seconds: float) -> None:
    """Let time pass for what is remembered."""
    cache = world.proxy._visitors._gateway.replays
    now = cache.now
    cache.now = lambda: now() + seconds


def statuses(client: httpx.Client, *paths: str, **headers: str) -> list[str]:
    """`fly-replay-cache-status` as machine `t` has seen it."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    seen = [client.get(path, headers=named).json() for path in paths]
    assert {one["machine"] for one in seen} == {"t"}
    return [one["headers"].get("fly-replay-cache-status", "") for one in seen]


@shows("proxy", "`fly-replay-cache: /path/*` sends later requests below that path at once", "docs")
@shows(
    "proxy", "`fly-replay-cache-status` is `miss` or `hit`; a hit has no `fly-replay-src`", "docs"
)
def test_a_replay_is_remembered_for_a_path(world: World, client: httpx.Client) -> None:
    router = Router(world, cached("/some/path/*"))
    assert statuses(client, "/some/path/a", "/some/path", "/some/path/b/c?x=1") == [
        *("miss", "hit", "hit")
    ]
    assert router.asked == 1
    assert statuses(client, "/some/pathology", "/some") == ["miss", "miss"]
    assert router.asked == 3
    seen = client.get("/some/path/a").json()
    assert "fly-replay-src" not in seen["headers"]
    assert seen["target"] == "/some/path/a"


@shows("proxy", "a cached replay ends with `fly-replay-cache-ttl-secs`", "docs")
def test_a_replay_is_remembered_for_its_time(world: World, client: httpx.Client) -> None:
    Router(world, cached("/", "60"))
    assert statuses(client, "/", "/") == ["miss", "hit"]
    later(world, 59)
    assert statuses(client, "/") == ["hit"]
    later(world, 2)
    assert statuses(client, "/", "/") == ["miss", "hit"]


@shows(
    "proxy",
    "a replay with a state, a transform, a timeout or a fallback is not cached, nor one for less "
    "than 10 s or for another path or host",
    "docs",
)
@pytest.mark.parametrize(
    ("headers", "why"),
    [
        (cached("/") | {"fly-replay": "instance=t;state=x"}, "with state cannot be cached"),
        (cached("/") | {"fly-replay": "instance=t;timeout=5s"}, "with timeout cannot be cached"),
        (cached("/", "9"), "is 9, and must be at least 10"),
        (cached("/other"), "does not match the request"),
        (cached("example.com/"), "does not match the request"),
    ],
)
def test_what_cannot_be_remembered_is_replayed_each_time(
    world: World, client: httpx.Client, headers: dict[str, str], why: str
) -> None:
    Router(world, headers)
    assert statuses(client, "/", "/") == ["miss", "miss"]
    assert why in world.logged[0]


def test_a_time_that_cannot_be_read_is_said(world: World, client: httpx.Client) -> None:
    Router(world, cached("/", "soon"))
    assert (client.get("/").status_code, "soon" in client.get("/").text) == (502, True)


def test_hosts_are_apart_and_can_be_named(world: World, client: httpx.Client) -> None:
    router = Router(world, cached("web.fly.dev/a"))
    assert statuses(client, "/a", "/a") == ["miss", "hit"]
    assert statuses(client, "/a", Host="web.flycast") == ["miss"]
    assert router.asked == 2


@shows("proxy", "`cache` of the JSON form of `fly-replay`", "docs")
def test_the_json_form_is_remembered(world: World, client: httpx.Client) -> None:
    router = Router(world, {"fly-replay": "", "content-type": JSON})
    router.body = json.dumps({"instance": "t", "cache": {"prefix": "/p/*", "ttl": 60}}).encode()
    assert statuses(client, "/p", "/p", "/q") == ["miss", "hit", "miss"]


@shows("proxy", "`fly-replay-cache: invalidate` of the target's own replay ends it", "docs")
def test_the_target_can_end_it(world: World, client: httpx.Client) -> None:
    def back(seen: Seen) -> tuple[int, dict[str, str], bytes]:
        if seen.headers["fly-replay-cache-status"] == "hit":
            return 200, {"fly-replay": "instance=r", "fly-replay-cache": "invalidate"}, b""
        return 200, {}, b"back"

    router = Router(world, cached("/"), http(back))
    assert client.get("/").text == "back"
    assert router.asked == 1
    router.headers["fly-replay-cache-ttl-secs"] = "0"  # or it would be remembered again
    assert client.get("/").text == "back"
    assert router.asked == 2
    assert client.get("/").text == "back"
    assert router.asked == 3


@shows("proxy", "`fly-replay-cache-control: skip` bypasses the cache, if the app allows it", "docs")
@pytest.mark.parametrize(("allow", "status"), [("yes", "bypass"), ("no", "hit")])
def test_a_visitor_may_skip_it(world: World, client: httpx.Client, allow: str, status: str) -> None:
    Router(world, cached("/") | {"fly-replay-cache-allow-bypass": allow})
    assert statuses(client, "/") == ["miss"]
    assert statuses(client, "/", fly_replay_cache_control="skip") == [status]
    assert statuses(client, "/") == ["hit"]


@shows("proxy", "`http_options.replay_cache` remembers replays by cookie or header", "docs")
@pytest.mark.parametrize("kind", ["cookie", "header"])
def test_a_replay_is_remembered_for_a_session(
    world: World, client: httpx.Client, kind: str
) -> None:
    rule = {"path_prefix": "/in", "ttl_seconds": 60, "type": kind, "name": "sid"}
    short = rule | {"path_prefix": "/in/short", "ttl_seconds": 9}
    router = Router(world, {}, options={"replay_cache": [rule, short]})

    def session(value: str) -> dict[str, str]:
        return {"cookie": f"a=b; sid={value}"} if kind == "cookie" else {"sid": value}

    assert statuses(client, "/in", "/in/x", **session("1")) == ["miss", "hit"]
    assert statuses(client, "/in", **session("2")) == ["miss"]
    assert statuses(client, "/in", "/out", "/out") == ["miss"] * 3
    assert statuses(client, "/out", **session("1")) == ["miss"]
    skip = session("1") | {"fly_replay_cache_control": "skip"}
    assert statuses(client, "/in", **skip) == ["hit"]
    later(world, 61)
    assert statuses(client, "/in/short", "/in/short", **session("1")) == ["miss", "miss"]
    assert router.asked == 8


def test_when_the_remembered_machine_is_gone_the_app_is_asked(
    world: World, client: httpx.Client
) -> None:
    router = Router(world, cached("/"))
    assert statuses(client, "/", "/") == ["miss", "hit"]
    world.change("t", state="stopped")
    world.add("u", mirror("u"), region="fra", services=[service(HTTP)])
    router.headers |= {"fly-replay": "instance=u"}
    assert client.get("/").json()["machine"] == "u"
    assert client.get("/").json()["headers"]["fly-replay-cache-status"] == "hit"


def test_a_path_of_many_slashes_costs_little(world: World, client: httpx.Client) -> None:
    Router(world, cached("/"))
    assert statuses(client, "/" + "a/" * 20_000, "/") == ["miss", "hit"]
