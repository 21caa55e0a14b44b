"""What was scraped of machines, where Fly's Prometheus has it: below `/prometheus/<org>`.

Source: https://fly.io/docs/monitoring/metrics/; forms of answers are Prometheus's own,
https://prometheus.io/docs/prometheus/latest/querying/api/.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from urllib.parse import parse_qs

from starlette.responses import Response

from pytest_flymachines.emulator.answers import Problem, answer
from pytest_flymachines.emulator.call import Call, Routes
from pytest_flymachines.emulator.exposition import line
from pytest_flymachines.emulator.metrics import Sample, Target
from pytest_flymachines.emulator.selectors import SelectorError, parse
from pytest_flymachines.emulator.wiretime import now_ms, rfc3339_ms

__all__ = ["routes"]

routes = Routes()

ORG = "/prometheus/{org}"
TEXT = "text/plain; version=0.0.4; charset=utf-8"


@routes.on("GET", ORG + "/federate")
async def federate(call: Call) -> Response:
    """The newest samples of the series that a `match[]` selects, as text."""
    wanted = call.request.query_params.getlist("match[]")
    lines = [line(s.name, s.labels, s.value, s.at_ms) for s in _selected(call, wanted)]
    return Response("".join(sorted(lines)), media_type=TEXT)


@routes.on("GET", ORG + "/api/v1/query")
@routes.on("POST", ORG + "/api/v1/query")
async def query(call: Call) -> Response:
    """The newest samples of the series that the query, a plain selector, selects."""
    form = parse_qs(call.raw.decode(errors="replace"))
    wanted = call.query("query") or form.get("query", [""])[0]
    now_s = now_ms() / 1000
    found = [
        {"metric": sample.labels | {"__name__": sample.name}, "value": [now_s, sample.value]}
        for sample in _selected(call, [wanted])
    ]
    return _success({"resultType": "vector", "result": found})


@routes.on("GET", ORG + "/api/v1/targets")
async def targets(call: Call) -> Response:
    """What is scraped, and what came of it."""
    found = call.emulator.flyd.metrics.targets(call.param("org"), call.access.app)
    active = [_target(target) for target in found if target.active]
    return _success({"activeTargets": active, "droppedTargets": []})


def _selected(call: Call, texts: Iterable[str]) -> Iterator[Sample]:
    try:
        selectors = [parse(text) for text in texts]
    except SelectorError as error:
        body = {"status": "error", "errorType": "bad_data", "error": str(error)}
        raise Problem(400, str(error), body=body) from None
    for sample in call.emulator.flyd.metrics.samples(call.param("org"), call.access.app):
        if any(selector.fits(sample) for selector in selectors):
            yield sample


def _target(target: Target) -> dict[str, object]:
    health = "down" if target.error else "up" if target.tried_ms else "unknown"
    return {
        "scrapeUrl": target.url,
        "labels": target.labels,
        "discoveredLabels": {},
        "lastError": target.error,
        "lastScrape": rfc3339_ms(target.tried_ms),
        "lastScrapeDuration": round(target.took_s, 6),
        "health": health,
    }


def _success(data: object) -> Response:
    return answer({"status": "success", "data": data})
