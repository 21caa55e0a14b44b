from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from tests.emulator.conftest import App, Fly, Serve, eventually


def test_everything_but_health_needs_the_token(fly: Fly) -> None:
    url = fly.emulator.control_url
    assert httpx.get(f"{url}/health", trust_env=False).json() == {"ok": True}
    for method, path in (
        ("GET", "/requests"),
        ("POST", "/shutdown"),
        ("POST", "/disown"),
        ("GET", "/faults"),
        ("POST", "/forwards"),
        ("GET", "/services"),
        ("GET", "/"),
        ("GET", "/nothing"),
    ):
        assert httpx.request(method, f"{url}{path}", trust_env=False).status_code == 401
    assert fly.control.get("/nothing").status_code == 404


def test_deploy_token_does_not_open_the_control_interface(app: App) -> None:
    token = app.fly.ok("POST", f"{app.path}/deploy_token", {"expiry": "24h"})["token"]
    headers = {"authorization": f"Bearer {token}"}
    for path in ("/faults", "/requests", "/"):
        url = f"{app.fly.emulator.control_url}{path}"
        assert httpx.get(url, headers=headers, trust_env=False).status_code == 401


def test_request_log_has_no_token(app: App, serve: Serve, tmp_path: Path) -> None:
    file = tmp_path / "log"
    with serve("--log", str(file)) as emulator:
        fly = Fly(emulator)
        fly.error("GET", "/v1/apps/unknown?a=b")
        fly.control.get("/requests")
        [line] = fly.control.get("/requests").text.splitlines()
        entry = json.loads(line)
        assert (entry["method"], entry["path"], entry["query"]) == (
            "GET",
            "/v1/apps/unknown",
            "a=b",
        )
        assert (entry["status"], entry["error"]) == (404, "app not found")
        assert entry["request_id"].endswith("-ord")
        assert entry["headers"]["authorization"] == "***"
        assert emulator.token not in line
        assert fly.control.delete("/requests").status_code == 204
        assert fly.control.get("/requests").text == ""
        written = file.read_text()
        assert json.loads(written.splitlines()[0])["path"] == "/v1/apps/unknown"
        assert emulator.token not in written
        fly.close()


def test_request_log_masks_secrets_wherever_they_stand(serve: Serve, tmp_path: Path) -> None:
    file = tmp_path / "log"
    secrets = {"hunter2-one", "hunter2-two", "hunter2-six", "fm2_lJPECAAA", "5c35f65c9f95"}
    with serve("--log", str(file), token="invented-by-the-user") as emulator:
        fly = Fly(emulator)
        headers = {"fly-machine-lease-nonce": "5c35f65c9f95", "x-api-key": "hunter2-six"}
        params = {"access_token": "hunter2-one", "PASSWORD": "hunter2-two", "region": "ord"}
        fly("GET", "/v1/apps/unknown", headers=headers, params=params)
        fly("GET", f"/v1/apps/{emulator.token}")
        fly("GET", "/v1/apps/unknown?acc%65ss_tok%65n=hunter2-one&note=FlyV1%20fm2_lJPECAAA==")
        fly("GET", "/v1/apps/unknown", headers={"user-agent": "curl/8 Bearer fm2_lJPECAAA=="})
        body = {"name": "API_KEY", "value": "hunter2-one"}
        fly("POST", "/v1/apps/unknown/secrets", body)
        kept = fly.control.get("/requests").text
        fly.close()
    for text in (kept, file.read_text()):
        assert len(text.splitlines()) == 5
        assert not [secret for secret in {*secrets, emulator.token} if secret in text], text
    first = json.loads(kept.splitlines()[0])
    assert first["query"] == "access_token=***&PASSWORD=***&region=ord"


def test_page_shows_what_is_there(app: App) -> None:
    machine = app.create("sleep", "inf", name="shown")
    app.fly.ok("POST", f"{app.path}/volumes", {"name": "data"})
    app.fly.error("GET", "/v1/apps/%3Cscript%3E")
    page = app.fly.control.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert machine.id in page.text
    assert "shown" in page.text
    assert "/v1/apps/&lt;script&gt;" in page.text
    assert "/v1/apps/<script>" not in page.text
    assert app.fly.emulator.token not in page.text


def test_page_without_the_token_shows_nothing(app: App) -> None:
    machine = app.create("sleep", "inf", skip_launch=True, wait=None)
    page = httpx.get(app.fly.emulator.control_url, trust_env=False)
    assert page.status_code == 401
    assert "<form>" in page.text
    assert machine.id not in page.text
    assert "www-authenticate" not in page.headers


def test_output_of_the_main_process_can_be_read(app: App) -> None:
    machine = app.create("sh", "-c", "echo out; echo err >&2; sleep inf")
    control = app.fly.control
    path = f"/machines/{machine.id}/log"
    eventually(lambda: "err" in control.get(path).text)
    assert control.get(path).text == "out\nerr\n"
    assert control.get("/machines/unknown/log").status_code == 404


@pytest.mark.parametrize("size", [64 * 1024 + 1])
def test_bodies_are_bounded(fly: Fly, size: int) -> None:
    assert fly.control.post("/faults", content=b" " * size).status_code == 413
