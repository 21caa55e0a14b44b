from __future__ import annotations

import httpx
import pytest

from tests.emulator.conftest import App, Fly
from tests.emulator.fidelity import shows
from tests.emulator.schema import check


def get(fly: Fly, path: str, **headers: str) -> httpx.Response:
    """A request without the client's own headers."""
    response = httpx.get(f"{fly.emulator.api_url}{path}", headers=headers, trust_env=False)
    check(response)
    return response


@shows(
    "auth",
    "`Bearer` and `FlyV1`, in any case, also twice; one part of a comma list suffices",
    "fly-go",
)
@pytest.mark.parametrize(
    "form",
    ["Bearer {}", "FlyV1 {}", "bearer {}", "FlyV1 Bearer {}", "FlyV1 fm2_x,{}", "Bearer a, {}"],
)
def test_token_forms(app: App, form: str) -> None:
    header = form.format(app.fly.emulator.token)
    assert get(app.fly, app.path, authorization=header).status_code == 200


@shows("auth", "401 for a missing or wrong token", "seen")
@pytest.mark.parametrize("header", ["", "Bearer", "Bearer wrong", "{}x", "Basic {}"])
def test_wrong_tokens(app: App, header: str) -> None:
    value = header.format(app.fly.emulator.token)
    response = get(app.fly, app.path, **({"authorization": value} if value else {}))
    assert response.status_code == 401
    assert response.json() == {"error": "Authenticate: token validation error"}


@shows("errors", "an unknown path is the plain text `404 page not found`", "seen")
def test_unknown_path(fly: Fly) -> None:
    response = get(fly, "/v1/nothing")
    assert (response.status_code, response.text) == (404, "404 page not found\n")
    assert response.headers["content-type"].startswith("text/plain")
    assert fly("POST", "/v1/platform/regions").status_code == 405


@shows("headers", "every answer has a `fly-request-id`: a ULID and the region", "seen")
@shows("headers", "answers come through Fly's proxy: `server`, `via`", "seen")
def test_headers_of_answers(fly: Fly) -> None:
    response = get(fly, "/v1/nothing")
    assert response.headers["fly-request-id"].endswith("-ord")
    assert response.headers["server"].startswith("Fly/")
    assert response.headers["via"] == "1.1 fly.io"


@shows("security", "only names of loopback are answered, against DNS rebinding", "ours")
@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:1", 200),
        ("127.0.0.1", 200),
        ("[::1]:80", 200),
        ("fly.localhost", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example", 421),
        ("192.168.0.1", 421),
        ("0.0.0.0", 421),
        ("2130706433", 421),
        ("[::ffff:127.0.0.1]", 421),
        ("x@127.0.0.1", 421),
        ("localhost.", 421),
        ("", 421),
    ],
)
def test_host_header(app: App, host: str, status: int) -> None:
    token = f"Bearer {app.fly.emulator.token}"
    assert get(app.fly, app.path, authorization=token, host=host).status_code == status
    control = httpx.get(
        f"{app.fly.emulator.control_url}/health", headers={"host": host}, trust_env=False
    )
    assert control.status_code == status


@shows("headers", "client signals, traces and cookies of flyctl are ignored", "flyctl")
def test_extra_headers_are_ignored(app: App) -> None:
    headers = {
        "fly-client-interactive": "false",
        "fly-client-agent": "x",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "fly-force-instance-id": "x",
        "cookie": "fly_flaps_affinity=other",
    }
    assert app.fly.ok("GET", app.path, headers=headers)["name"] == app.name
