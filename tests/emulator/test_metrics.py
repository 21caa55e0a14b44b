"""What machines expose is scraped, and found where Fly's Prometheus has it."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from pytest_flymachines.emulator import exposition
from pytest_flymachines.emulator.metrics import Sample
from pytest_flymachines.emulator.selectors import SelectorError, parse
from tests.emulator.conftest import App, Fly, Machine, Serve, eventually
from tests.emulator.fidelity import shows

PROGRAM = r"""
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    count = 0
    def do_GET(self):
        Handler.count += 1
        body = f'''# HELP scrapes_total How often.
# TYPE scrapes_total counter
scrapes_total{{app="mine",path="a\\"b"}} {Handler.count}
# TYPE heat gauge
heat 1.5e3 1700000000000
broken_by_nothing NaN
'''.encode() if self.path == "/metrics" else b"{no metrics}"
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def scraped(serve: Serve) -> Iterator[App]:
    """An app whose machines are scraped often."""
    with serve("--app", "metered", scrape_every_s=0.1) as emulator:
        fly = Fly(emulator)
        with contextlib.closing(fly):
            yield App(fly, "metered")


def exposing(app: App, **metrics: Any) -> Machine:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = (sys.executable, "-c", PROGRAM, str(port))
    return app.create(*command, metrics={"port": port, **metrics})


def query(app: App, text: str) -> list[dict[str, Any]]:
    data = app.fly.ok("GET", "/prometheus/personal/api/v1/query", params={"query": text})["data"]
    assert data["resultType"] == "vector"
    result: list[dict[str, Any]] = data["result"]
    return result


def target_of(machine: Machine) -> dict[str, Any]:
    data = machine.app.fly.ok("GET", "/prometheus/personal/api/v1/targets")["data"]
    own = [t for t in data["activeTargets"] if t["labels"]["instance"] == machine.id]
    return own[0] if own else {}


@shows(
    "metrics",
    "a started machine is scraped every 15 s; its own labels `app`, `region`, `host`, `instance` "
    "are replaced by Fly's",
    "docs",
)
@shows(
    "GET /prometheus/{org}/federate",
    "the newest samples of the last five minutes that a `match[]` selects; nothing without one",
    "docs",
)
@shows(
    "GET /prometheus/{org}/api/v1/query",
    "the same as an instant vector; a query is a selector, anything else of PromQL is a 400",
    "ours",
)
@shows("POST /prometheus/{org}/api/v1/query", "the query in a form", "docs")
def test_what_a_machine_exposes_is_found(scraped: App) -> None:
    fly, machine = scraped.fly, exposing(scraped)
    own = f'instance="{machine.id}"'
    first = eventually(lambda: query(scraped, f"scrapes_total{{{own}}}"))[0]
    labels = first["metric"]
    assert labels.pop("host").isalnum()
    assert labels == {
        "__name__": "scrapes_total",
        "app": "metered",
        "region": "ord",
        "instance": machine.id,
        "path": 'a"b',
    }
    eventually(
        lambda: (
            float(query(scraped, f"scrapes_total{{{own}}}")[0]["value"][1])
            > float(first["value"][1])
        )
    )
    assert query(scraped, f"heat{{{own}}}") == [], "its own time is long ago"
    assert fly.ok("GET", "/prometheus/personal/federate") is None
    path = "/prometheus/personal/federate"
    page = fly.http.get(path, params={"match[]": [f"{{{own}}}", "never"]}).text.splitlines()
    assert [line.partition("{")[0] for line in page] == ["broken_by_nothing", "scrapes_total"]
    assert 'path="a\\"b",region="ord"} ' in page[1]
    assert page[0].split()[-2] == "NaN"
    form = {"content-type": "application/x-www-form-urlencoded"}
    by_form = fly.http.post(
        "/prometheus/personal/api/v1/query", content=f"query=%7B{own}%7D", headers=form
    )
    assert len(by_form.json()["data"]["result"]) == 2
    assert fly.http.get("/prometheus/another/federate", params={"match[]": "{app!=''}"}).text == ""
    refused = fly.http.get("/prometheus/personal/api/v1/query", params={"query": "sum(up)"})
    assert refused.status_code == 400
    assert refused.json()["errorType"] == "bad_data"
    assert "only selectors" in refused.json()["error"]


@shows(
    "GET /prometheus/{org}/api/v1/targets",
    "what is scraped, and why a scrape failed; no machine that is not started",
    "docs",
)
def test_a_target_says_what_went_wrong(scraped: App) -> None:
    machine = exposing(scraped, path="/nothing")
    eventually(lambda: target_of(machine).get("lastError", "").count("metrics"))
    assert target_of(machine)["health"] == "down"
    assert target_of(machine)["scrapeUrl"].startswith(f"http://{machine.id}:")
    machine.post("stop")
    machine.wait("stopped")
    assert target_of(machine) == {}
    secure = exposing(scraped, https=True)
    eventually(lambda: "SSL" in target_of(secure).get("lastError", ""))


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("a:b", True),
        ("b", False),
        ('a:b{app="x"}', True),
        ("{app=\"x\", region!='ord', }", True),
        ('{app=~"x|y",app!~"y"}', True),
        ('{app=~"."}', True),
        ('{app=~""}', False),
        ('{none=""}', True),
        ('{text="1\\n\\"2"}', True),
        ('{__name__=~"a.*"}', True),
    ],
)
def test_selector(text: str, fits: bool) -> None:
    sample = Sample("a:b", {"app": "x", "region": "iad", "text": '1\n"2'}, "1", 0)
    assert parse(text).fits(sample) is fits


@pytest.mark.parametrize(
    "text", ["", "{}", "1", "a[5m]", "a + b", 'a{b="c"', "a{b=c}", 'a{b=~"("}', 'a{b="c" d="e"}']
)
def test_no_selector(text: str) -> None:
    with pytest.raises(SelectorError):
        parse(text)


def test_text_format() -> None:
    text = (
        "# TYPE a counter\n\na 1\n"
        'b:c{x="1}", y = "a\\\\b\\n\\"" , } -1.5e-3 170\n  d{} +Inf\ne NaN -5'
    )
    assert list(exposition.read(text)) == [
        ("a", {}, "1", None),
        ("b:c", {"x": "1}", "y": 'a\\b\n"'}, "-1.5e-3", 170),
        ("d", {}, "+Inf", None),
        ("e", {}, "NaN", -5),
    ]
    for sample in exposition.read(text):
        name, labels, value, stamp = sample
        written = exposition.line(name, labels, value, stamp or 1)
        assert list(exposition.read(written)) == [(name, labels, value, stamp or 1)]


@pytest.mark.parametrize("text", ["a", "a b", "a 1 2 3", "1a 1", "a{b=1} 1", 'a{b="1} 1', "<html>"])
def test_no_text_format(text: str) -> None:
    with pytest.raises(ValueError, match="line 2"):
        list(exposition.read(f"# first\n{text}\n"))
