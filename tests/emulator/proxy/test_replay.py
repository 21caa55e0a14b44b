from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest

from tests.emulator.fidelity import shows
from tests.emulator.proxy.programs import Seen, http, mirror, says
from tests.emulator.proxy.world import Program, World

JSON = "application/vnd.fly.replay+json"


def replays(header: str) -> Program:
    """Answers every request with this `fly-replay`."""
    return says("", fly_replay=header)


def replays_json(**fields: Any) -> Program:
    """The same in the JSON form."""
    return says(json.dumps(fields), Content_Type=JSON)


def once(header: str) -> Program:
    """Replays a request, and mirrors one that came back from that."""

    def handle(seen: Seen) -> tuple[int, dict[str, str], bytes]:
        failed = seen.headers.get("fly-replay-failed", "")
        if failed:
            return 200, {}, json.dumps([failed, seen.body.decode()]).encode()
        return 200, {"fly-replay": header}, b""

    return http(handle)


def router(world: World, program: Program) -> None:
    """Machine `r` answers first, as the nearest; `t` is farther away."""
    world.add("r", program)
    world.add("t", mirror("t"), region="fra")


@shows("proxy", "`fly-replay: instance=ID` sends the request there, with `fly-replay-src`", "docs")
def test_a_request_is_replayed_to_the_machine_named(world: World, client: httpx.Client) -> None:
    router(world, replays("instance=t;state=abc"))
    seen = client.post("/p?q=1", content=b"body", headers={"X-Own": "1"}).json()
    assert (seen["machine"], seen["method"], seen["target"]) == ("t", "POST", "/p?q=1")
    assert (seen["body"], seen["headers"]["x-own"]) == ("body", "1")
    source = seen["headers"]["fly-replay-src"]
    assert re.fullmatch(r"instance=r;region=ord;t=\d{16};state=abc", source)


@shows("proxy", "`fly-replay`: region, app, elsewhere, state", "docs")
@pytest.mark.parametrize(
    "header", ["region=fra", 'region="nrt,eu"', "elsewhere=true", "prefer_instance=t", "app=other"]
)
def test_other_fields_lead_elsewhere_too(world: World, client: httpx.Client, header: str) -> None:
    router(world, replays(header))
    world.add("o", mirror("o"), app="other")
    expected = "o" if "app=" in header else "t"
    assert client.get("/").json()["machine"] == expected


@shows("proxy", "`application/vnd.fly.replay+json` rewrites the request", "docs")
def test_the_json_form_rewrites_the_request(world: World, client: httpx.Client) -> None:
    router(
        world,
        replays_json(
            instance="t",
            transform={
                "path": "/new?x=1",
                "delete_headers": ["cookie"],
                "set_headers": [{"name": "X-Own", "value": "2"}],
            },
        ),
    )
    seen = client.get("/old", headers={"Cookie": "a=b", "X-Own": "1"}).json()
    assert seen["target"] == "/new?x=1"
    assert seen["headers"]["x-own"] == "2"
    assert "cookie" not in seen["headers"]


def test_a_body_that_came_in_pieces_is_replayed(world: World, client: httpx.Client) -> None:
    router(world, replays("instance=t"))
    pieces = (b"x" * 100_000 for _ in range(9))
    assert len(client.post("/", content=pieces).json()["body"]) == 900_000


@shows("proxy", "a body above 1 MB cannot be replayed", "docs")
def test_a_body_above_one_megabyte_cannot_be_replayed(world: World, client: httpx.Client) -> None:
    router(world, replays("instance=t"))
    answer = client.post("/", content=b"x" * 1_100_000)
    assert answer.status_code == 502
    assert "[PA01]" in answer.text


@shows("proxy", "a request is replayed ten times at most", "docs")
def test_replays_end_after_ten(world: World, client: httpx.Client) -> None:
    world.add("r", replays("instance=r"))
    answer = client.get("/")
    assert (answer.status_code, "[PA02]" in answer.text) == (502, True)


@pytest.mark.parametrize(
    ("program", "text"),
    [
        (replays("instance"), "[PA03]"),
        (replays("timeout=fast"), 'invalid duration "fast"'),
        (replays("timeout=-1s"), "negative"),
        (replays("fallback=maybe"), "not force_self or prefer_self"),
        (says("{", Content_Type=JSON), "[PA03]"),
        (says("x" * 1_100_000, Content_Type=JSON), "larger than 1 MB"),
        (replays("app=nothing"), "[PA04]"),
        (replays("app=foreign"), "[PA05]"),
    ],
)
def test_a_replay_that_cannot_be_is_502_with_the_reason(
    world: World, client: httpx.Client, program: Program, text: str
) -> None:
    world.add("r", program)
    world.add("f", mirror("f"), app="foreign")
    world.apps["foreign"] = type(world.apps["web"])(name="foreign", org="strangers")
    answer = client.get("/")
    assert answer.status_code == 502
    assert text in answer.text


def test_without_fallback_a_failed_replay_is_an_error(world: World, client: httpx.Client) -> None:
    world.add("r", replays("instance=gone"))
    answer = client.get("/")
    assert (answer.status_code, "no machine gone" in answer.text) == (503, True)


@shows("proxy", "`fallback`: the request comes back with `fly-replay-failed`", "docs")
@pytest.mark.parametrize("fallback", ["force_self", "prefer_self"])
def test_with_fallback_the_request_comes_back(
    world: World, client: httpx.Client, fallback: str
) -> None:
    world.add("r", once(f"instance=gone;region=fra;fallback={fallback}"))
    failed, body = client.post("/", content=b"body").json()
    assert re.fullmatch(
        r"instance=gone;app=web;region=fra;replay_source=r;reason=no_candidate;elapsed_ms=\d+",
        failed,
    )
    assert body == "body"


def test_a_timeout_ends_the_tries(world: World, client: httpx.Client) -> None:
    world.add("r", once("instance=t;timeout=50ms;fallback=force_self"))
    world.add("t", app="web", region="fra")
    failed, _ = client.get("/").json()
    assert "reason=timeout" in failed


def test_a_fallback_may_not_replay_again(world: World, client: httpx.Client) -> None:
    world.add("r", replays("instance=gone;fallback=force_self"))
    answer = client.get("/")
    assert (answer.status_code, answer.headers["fly-replay"]) == (
        200,
        "instance=gone;fallback=force_self",
    )


def test_a_machine_that_prefers_another_hears_that_it_was_not_to_be_had(
    world: World, client: httpx.Client
) -> None:
    world.add("r", replays("prefer_instance=gone;region=fra"))
    world.add("t", mirror("t"), region="fra")
    headers = client.get("/").json()["headers"]
    assert headers["fly-preferred-instance-unavailable"] == "gone"
