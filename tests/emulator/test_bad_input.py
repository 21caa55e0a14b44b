"""Requests that make no sense: each gets Fly's status, in Fly's shape, and changes nothing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.emulator.conftest import App
from tests.emulator.fidelity import shows
from tests.emulator.wrong_fields import Wrong, wrong_bodies, wrong_parameters

IMAGE = {"image": "alpine"}
SHARED = {"cpu_kind": "shared", "cpus": 1, "memory_mb": 256}

#: Method, path below the app (`M` is a machine, `V` a volume), and a field of the wrong type.
WRONG: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/machines", {"config": IMAGE, "name": 7}),
    ("POST", "/machines", {"config": IMAGE, "region": ["ord"]}),
    ("POST", "/machines", {"config": IMAGE, "skip_launch": "yes"}),
    ("POST", "/machines", {"config": IMAGE, "lease_ttl": "60"}),
    ("POST", "/machines", {"config": [IMAGE]}),
    ("POST", "/machines", {"config": {"image": 1}}),
    ("POST", "/machines", {"config": {**IMAGE, "env": {"A": 1}}}),
    ("POST", "/machines", {"config": {**IMAGE, "guest": {**SHARED, "cpus": "1"}}}),
    ("POST", "/machines", {"config": {**IMAGE, "services": {"protocol": "tcp"}}}),
    ("POST", "/machines", {"config": {**IMAGE, "init": {"exec": "sleep inf"}}}),
    ("POST", "/machines", {"config": {**IMAGE, "stop_config": {"timeout": "soon"}}}),
    ("POST", "M", {"config": {"image": 1}}),
    ("POST", "M", {"config": IMAGE, "current_version": 1}),
    ("POST", "M/exec", {"command": "true"}),
    ("POST", "M/exec", {"cmd": "true", "timeout": "5"}),
    ("POST", "M/lease", {"ttl": "60"}),
    ("POST", "M/stop", {"signal": {}}),
    ("POST", "M/signal", {"signal": []}),
    ("PUT", "M/memory", {"limit_mb": "256"}),
    ("POST", "M/memory/reclaim", {"amount_mb": "1"}),
    ("PUT", "M/metadata", {"metadata": {"a": 1}}),
    ("PATCH", "M/metadata", {"metadata": []}),
    ("POST", "M/metadata/a", {"value": 1}),
    ("POST", "/volumes", {"name": 1}),
    ("POST", "/volumes", {"name": "data", "size_gb": "3"}),
    ("PUT", "V", {"snapshot_retention": "5"}),
    ("PUT", "V/extend", {"size_gb": "5"}),
    ("POST", "/secrets", {"values": {"A": 1}}),
    ("POST", "/secrets/A", {"value": 1}),
    ("POST", "/ip_assignments", {"type": 4}),
    ("POST", "/deploy_token", {"expiry": 1}),
]


class Things:
    """A machine and a volume, and the paths of what is in the table."""

    def __init__(self, app: App) -> None:
        self.machine = app.create("sleep", "inf")
        volume = app.fly.ok("POST", f"{app.path}/volumes", {"name": "data"})
        self.app = app
        self._volume = f"{app.path}/volumes/{volume['id']}"

    def path(self, short: str) -> str:
        starts = {"M": self.machine.path, "V": self._volume, "/": f"{self.app.path}/"}
        return starts[short[0]] + short[1:]

    def ask(self, case: Wrong) -> tuple[int, str]:
        """Status and text of the answer to a request of the document."""
        names = {
            "app_name": self.app.name,
            "machine_id": self.machine.id,
            "volume_id": self._volume.rpartition("/")[2],
            "org_slug": "personal",
            "secret_name": "NAME",
            "key": "key",
        }
        path = "/v1" + case.path.format_map(names)
        answer = self.app.fly(case.method, path, case.body, params=dict(case.query))
        return answer.status_code, answer.text if answer.status_code < 400 else answer.json()[
            "error"
        ]

    def refused(self, method: str, path: str, body: Any) -> str:
        """The text of the refusal, a 400 in Fly's shape."""
        status, text = self.app.fly.error(method, self.path(path), body)
        assert status == 400, (method, path, body, text)
        return text


@pytest.fixture
def things(app: App) -> Things:
    return Things(app)


@shows("errors", "a field of the wrong type is a 400 in the words of Go's decoder", "seen")
def test_wrong_types_are_refused_everywhere(things: Things) -> None:
    for method, path, body in WRONG:
        text = things.refused(method, path, body)
        assert text.startswith(("json: ", "time: ")), (method, path, body, text)
    state = things.machine.get()
    assert (state["state"], state["config"].get("metadata")) == ("started", None)
    assert len(things.app.fly.ok("GET", things.app.machines)) == 1


@shows("errors", "so is every field of the OpenAPI document, however deep", "openapi")
def test_every_field_of_the_document_is_checked(things: Things) -> None:
    wrong = list(wrong_bodies())
    assert len(wrong) > 500
    for case in wrong:
        status, text = things.ask(case)
        assert status == 400, (case, text)
        assert text.startswith(("json: cannot unmarshal", "invalid duration")), (case, text)
    assert len(things.app.fly.ok("GET", things.app.machines)) == 1


@shows("errors", "a number or a truth of a query that is none is a 400", "guess")
def test_every_query_of_the_document_is_checked(things: Things) -> None:
    for case in wrong_parameters():
        status, text = things.ask(case)
        assert status == 400, (case, text)
        assert "invalid syntax" in text, (case, text)
    assert things.machine.state == "started"


@shows("errors", "a body that is no JSON, or JSON of another form, is a 400", "seen")
def test_bodies_of_another_form_are_refused_everywhere(things: Things) -> None:
    for method, path in dict.fromkeys((method, path) for method, path, _ in WRONG):
        for raw in (b"[]", b'"text"', b"12", b'{"config": '):
            answer = things.app.fly(method, things.path(path), content=raw)
            assert answer.status_code == 400, (method, path, raw, answer.text)


@shows("errors", "a required field that is missing is a 400", "guess")
def test_missing_fields_are_refused(things: Things) -> None:
    for method, path in (
        ("POST", "/machines"),
        ("POST", "M"),
        ("POST", "M/exec"),
        ("POST", "M/signal"),
        ("PUT", "M/memory"),
        ("POST", "/volumes"),
        ("PUT", "V/extend"),
        ("POST", "/ip_assignments"),
    ):
        things.refused(method, path, {})
    for path in ("/v1/apps", "/v1/platform/placements"):
        assert things.app.fly.error("POST", path, {})[0] == 400


@shows("errors", "an over-long name is a 400, of an app a 422", "guess")
def test_long_names_are_refused(things: Things) -> None:
    long = {"config": IMAGE, "skip_launch": True, "name": "n" * 256}
    assert "name" in things.refused("POST", "/machines", long)
    assert "name" in things.refused("POST", "/machines", {**long, "name": "a\nb"})
    assert "name" in things.refused("POST", "/volumes", {"name": "n" * 31})
    assert "name" in things.refused("POST", "/secrets/" + "S" * 256, {"value": "x"})
    assert "key" in things.refused("POST", "M/metadata/" + "k" * 256, {"value": "x"})
    body = {"name": "n" * 64, "org_slug": "personal"}
    assert things.app.fly.error("POST", "/v1/apps", body)[0] == 422


LONG = "x" * 1000
#: Method, path, body, and a word of the refusal.
SENSELESS: list[tuple[str, str, dict[str, Any], str]] = [
    *(
        ("POST", "/machines", {"config": {**IMAGE, **config}}, word)
        for config, word in (
            ({"image": LONG}, "config.image"),
            ({"image": "a b"}, "config.image"),
            ({"metadata": {LONG: "1"}}, "config.metadata"),
            ({"checks": {LONG: {"type": "tcp", "port": 1}}}, "config.checks"),
            ({"env": {LONG: "1"}}, "config.env"),
            ({"env": {"A=B": "1"}}, "config.env"),
            ({"env": {"": "1"}}, "config.env"),
            ({"env": {"A": "a\0b"}}, "config.env"),
            ({"init": {"exec": ["a\0b"]}}, "config.init.exec"),
            ({"dns": {"hostname": LONG}}, "config.dns.hostname"),
            ({"files": [{"guest_path": "/" + LONG}]}, "config.files[0].guest_path"),
            ({"files": [{"guest_path": "/a\0b"}]}, "config.files[0].guest_path"),
            ({"files": [{"guest_path": "/a", "secret_name": LONG}]}, "config.files[0].secret_name"),
            ({"processes": [{"user": LONG}]}, "config.processes[0].user"),
            ({"processes": [{"env": {"": "1"}}]}, "config.processes[0].env"),
            ({"processes": [{"cmd": ["\0"]}]}, "config.processes[0].cmd"),
            ({"stop_config": {"timeout": "-5s"}}, "config.stop_config.timeout"),
            ({"restart": {"max_retries": -1}}, "config.restart.max_retries"),
        )
    ),
    ("POST", "/machines", {"config": IMAGE, "lease_ttl": -1}, "lease_ttl"),
    ("POST", "M", {"config": IMAGE, "lease_ttl": 10**12}, "lease_ttl"),
    ("POST", "M/lease", {"ttl": 10**12}, "ttl"),
    ("POST", "M/lease", {"ttl": -5}, "ttl"),
    ("POST", "M/lease?ttl=-5", {}, "ttl"),
    ("POST", "M/lease", {"description": LONG}, "description"),
    ("PUT", "M/metadata", {"metadata": {LONG: "1"}}, "key"),
    ("POST", "/volumes", {"name": "d", "size_gb": 501}, "size_gb"),
    ("POST", "/volumes", {"name": "d", "size_gb": -1}, "size_gb"),
    ("PUT", "V", {"snapshot_retention": 61}, "snapshot_retention"),
    ("PUT", "V/extend", {"size_gb": 501}, "size_gb"),
    ("POST", "/ip_assignments", {"type": "v6", "org_slug": LONG}, "org_slug"),
    ("POST", "/ip_assignments", {"type": "private_v6", "network": LONG}, "network"),
    ("POST", "/ip_assignments", {"type": "v6", "service_name": LONG}, "service_name"),
    ("POST", "/deploy_token", {"expiry": "soon"}, "duration"),
    ("POST", "/deploy_token", {"expiry": "-1h"}, "expiry"),
]


@shows(
    "errors",
    "what is too long or negative, or what no program can be started with, is a 400",
    "guess",
)
def test_senseless_values_are_refused(things: Things) -> None:
    for method, path, body, word in SENSELESS:
        assert word in things.refused(method, path, body), (method, path, body)
    fly = things.app.fly
    for field in ("org_slug", "network", "app_role_id"):
        body = {"name": "never", "org_slug": "personal", field: LONG}
        assert fly.error("POST", "/v1/apps", body)[0] == 400
    for field, value in (("count", -1), ("volume_name", LONG), ("volume_size_bytes", -1)):
        body = {"org_slug": "personal", field: value}
        assert fly.error("POST", "/v1/platform/placements", body)[0] == 400
    assert len(fly.ok("GET", things.app.machines)) == 1
    assert fly.error("GET", f"{things.machine.path}/lease")[0] == 404


@shows("errors", "a region that there is not is a 400; lists of it are empty", "guess")
def test_bad_regions_are_refused(things: Things) -> None:
    machine = {"config": IMAGE, "skip_launch": True, "region": "xyz"}
    assert "region xyz not found" in things.refused("POST", "/machines", machine)
    assert "xyz" in things.refused("POST", "/volumes", {"name": "data", "region": "xyz"})
    assert "xyz" in things.refused("POST", "/ip_assignments", {"type": "v4", "region": "xyz"})
    body = {"org_slug": "personal", "region": "xyz"}
    assert things.app.fly.error("POST", "/v1/platform/placements", body)[0] == 400
    assert things.app.fly.ok("GET", f"{things.app.machines}?region=xyz") == []


@shows("errors", "a guest that there is not is a 400, wherever one is named", "guess")
def test_bad_guests_are_refused(things: Things) -> None:
    for guest in ({}, {**SHARED, "cpus": 3}, {**SHARED, "memory_mb": 128}):
        config = {**IMAGE, "guest": guest}
        things.refused("POST", "/machines", {"config": config, "skip_launch": True})
        things.refused("POST", "M", {"config": config})
        things.refused("POST", "/volumes", {"name": "data", "compute": guest})
        body = {"org_slug": "personal", "compute": guest}
        assert things.app.fly.error("POST", "/v1/platform/placements", body)[0] == 400
    config = {**IMAGE, "guest": {**SHARED, "gpu_kind": "a10"}}
    big: dict[str, Any] = {"config": config, "skip_launch": True}
    assert things.app.fly.error("POST", things.app.machines, big)[0] == 422
