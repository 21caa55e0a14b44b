from __future__ import annotations

import re

import httpx
import pytest

from tests.emulator.fidelity import shows
from tests.emulator.proxy.programs import mirror, says
from tests.emulator.proxy.world import HTTPS, World, service


@shows(
    "proxy",
    "`Fly-Client-IP`, `Fly-Region`, `X-Forwarded-*`, `Via` and others are added to requests",
    "docs",
)
def test_a_machine_learns_who_came_and_how(world: World, client: httpx.Client) -> None:
    world.add("m1", mirror())
    headers = client.get("/").json()["headers"]
    assert headers["fly-client-ip"] == "127.0.0.1"
    assert headers["fly-forwarded-port"] == "443"
    assert headers["fly-region"] == "ord"
    assert re.fullmatch("[0-9A-Z]{26}-ord", headers["fly-request-id"])
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert headers["x-forwarded-proto"] == "https"
    assert headers["x-forwarded-port"] == "443"
    assert headers["x-forwarded-ssl"] == "on"
    assert headers["via"] == "1.1 fly.io"
    assert headers["host"] == "web.fly.dev"


def test_a_port_without_tls_is_plain_http(world: World, client: httpx.Client) -> None:
    world.add("m1", mirror())
    headers = client.get("/", headers={"Host": "web.fly.dev:80"}).json()["headers"]
    assert (headers["x-forwarded-proto"], headers["x-forwarded-ssl"]) == ("http", "off")


def test_what_only_the_proxy_may_say_is_taken_from_visitors(
    world: World, client: httpx.Client
) -> None:
    world.add("m1", mirror())
    spoofed = {
        "Fly-Client-IP": "6.6.6.6",
        "Fly-Region": "xxx",
        "Fly-Request-Id": "mine",
        "fly-src": "instance=evil",
        "fly-src-signature": "c2ln",
        "fly-replay-src": "instance=evil",
        "X-Forwarded-Proto": "gopher",
    }
    headers = client.get("/", headers=spoofed).json()["headers"]
    assert not set(spoofed.values()) & set(headers.values())
    assert {"fly-src", "fly-src-signature", "fly-replay-src"}.isdisjoint(headers)


def test_the_chain_of_proxies_is_continued(world: World, client: httpx.Client) -> None:
    world.add("m1", mirror())
    world.apps["web"] = type(world.apps["web"])(name="web", address="66.241.124.1")
    before = {"X-Forwarded-For": "9.9.9.9", "Via": "1.1 cdn", "X-Forwarded-Port": "8443"}
    headers = client.get("/", headers=before).json()["headers"]
    assert headers["x-forwarded-for"] == "9.9.9.9, 127.0.0.1, 66.241.124.1"
    assert headers["via"] == "1.1 cdn, 1.1 fly.io"
    assert headers["x-forwarded-port"] == "8443"


def test_hop_by_hop_headers_end_at_the_proxy(world: World, client: httpx.Client) -> None:
    world.add("m1", says("", Connection="x-inner", X_Inner="1", Keep_Alive="timeout=5", X_End="1"))
    world.add("m2", mirror(), app="mirror")
    hops = {
        "Host": "mirror.fly.dev",
        "Connection": "keep-alive, X-Secret",
        "X-Secret": "1",
        "TE": "trailers",
        "Keep-Alive": "300",
        "Proxy-Connection": "keep-alive",
        "X-End": "1",
    }
    arrived = client.get("/", headers=hops).json()["headers"]
    assert {"x-secret", "te", "keep-alive", "proxy-connection"}.isdisjoint(arrived)
    assert arrived["x-end"] == "1"
    answer = client.get("/").headers
    assert {"x-inner", "keep-alive"}.isdisjoint(answer)
    assert answer["x-end"] == "1"


@shows("proxy", "`Server`, `Via`, `fly-request-id` are added to answers", "docs")
def test_answers_carry_the_marks_of_the_proxy(world: World, client: httpx.Client) -> None:
    world.add("m1", says("", Server="nginx", Via="1.1 inner"))
    headers = client.get("/").headers
    assert headers["server"].startswith("Fly/")
    assert headers["via"] == "1.1 inner, 1.1 fly.io"
    assert re.fullmatch("[0-9A-Z]{26}-ord", headers["fly-request-id"])


@shows("proxy", "`http_options.response.pristine` leaves answers as they are", "docs")
def test_pristine_answers_are_left_as_they_are(world: World, client: httpx.Client) -> None:
    port = HTTPS | {"http_options": {"response": {"pristine": True}}}
    world.add("m1", says("", Server="nginx"), services=[service(port)])
    headers = client.get("/").headers
    assert headers["server"] == "nginx"
    assert {"via", "fly-request-id"}.isdisjoint(headers)


@shows("proxy", "`http_options.response.headers` sets and removes headers", "docs")
def test_headers_of_answers_are_set_and_removed_as_configured(
    world: World, client: httpx.Client
) -> None:
    wanted = {"X-Gone": False, "X-New": "1", "X-Many": ["a", "b"], "X-Old": "new"}
    port = HTTPS | {"http_options": {"response": {"headers": wanted}}}
    world.add("m1", says("", X_Gone="1", X_Old="old"), services=[service(port)])
    headers = client.get("/").headers
    assert "x-gone" not in headers
    assert headers.get_list("x-many") == ["a", "b"]
    assert (headers["x-new"], headers["x-old"]) == ("1", "new")


def test_set_cookie_lines_stay_apart_and_in_order(world: World, client: httpx.Client) -> None:
    world.add("m1", says("", Set_Cookie="a=1", set_cookie="b=2"))
    assert client.get("/").headers.get_list("set-cookie") == ["a=1", "b=2"]


@shows("proxy", "`force_https`: 301", "docs")
@pytest.mark.parametrize("port", [80, 8080])
def test_force_https_redirects_plain_visitors(
    world: World, client: httpx.Client, port: int
) -> None:
    plain = {"port": port, "handlers": ["http"], "force_https": True}
    world.add("m1", mirror(), services=[service(plain, HTTPS)])
    answer = client.post("/a?b=c", headers={"Host": f"web.fly.dev:{port}"})
    assert answer.status_code == 301
    assert answer.headers["location"] == "https://web.fly.dev/a?b=c"
    assert client.get("/").status_code == 200


def test_force_https_on_loopback_leads_to_the_port_with_tls(world: World) -> None:
    plain = {"port": 80, "handlers": ["http"], "force_https": True}
    world.add("m1", mirror(), services=[service(plain, HTTPS)])
    host, port = world.address(80)
    answer = httpx.get(f"http://{host}:{port}/a", trust_env=False)
    assert answer.headers["location"] == "https://{}:{}/a".format(*world.address(443))
