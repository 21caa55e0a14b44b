"""What the emulator does as Fly does, where that is known from, and which test shows it.

`docs/fidelity.md` is made from this: `python -m tests.emulator.fidelity`.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tests.emulator.schema import OPERATIONS

F = TypeVar("F", bound=Callable[..., object])

#: Where facts come from; the key is what stands in the table.
SOURCES = {
    "docs": "Fly's documentation, https://fly.io/docs/machines/ and pages below",
    "openapi": "the API's own OpenAPI document",
    "fly-go": "what superfly/fly-go sends and can decode",
    "flyctl": "what superfly/flyctl sends and can decode",
    "init": "superfly/init-snapshot, Fly's guest server of 2021",
    "seen": "answers of the live API that users have published",
    "guess": "not known; the choice is ours",
    "ours": "a feature of the emulator that Fly does not have",
}

PAGE = Path(__file__).parents[2] / "docs" / "fidelity.md"


@dataclass(frozen=True)
class Behaviour:
    """One thing that a test shows."""

    area: str
    text: str
    source: str
    test: str


BEHAVIOURS: list[Behaviour] = []


def shows(area: str, text: str, source: str) -> Callable[[F], F]:
    """Say what a test shows.

    Args:
        area: An operation such as `POST M/exec`, or a topic.
        text: What the emulator does.
        source: One of `SOURCES`.
    """
    assert source in SOURCES

    def register(function: F) -> F:
        test = f"{function.__module__.rsplit('.', 1)[-1]}.{function.__name__}"
        BEHAVIOURS.append(Behaviour(area, text, source, test))
        return function

    return register


#: What is not emulated, or not as on Fly.
GAPS = (
    (
        "certificates, secret keys, managed Postgres, `tokens/oidc|kms|authenticate|authorize`",
        "501 in Fly's error shape",
    ),
    (
        "`config.containers`, more than one entry in `config.processes`, `files.image_config`",
        "400; a machine has one main process",
    ),
    (
        "`image` with the engines bubblewrap and process",
        "accepted and shown, but this computer's own files are the image",
    ),
    ("GPU machines", "422 `insufficient_capacity`"),
    (
        "sizes of guests and volumes",
        (
            "checked and shown; whether memory and CPUs are limited "
            "depends on the engine, and a volume is a directory without a limit"
        ),
    ),
    (
        "6PN between machines, `.internal` names, `_api.internal`",
        (
            "whole with the engine bubblewrap where the user may open /dev/net/tun; with docker "
            "without TXT records, `top<n>.nearest.of`, and answers as of the machine's start; "
            "with process not at all"
        ),
    ),
    ("flycast, WireGuard, `dns_forward_rules`", "addresses are given out, but lead nowhere"),
    (
        "the Unix socket `/.fly/api` in the machine",
        "serves the machine's own paths without a token, the rest with one; `tokens/oidc` is 501",
    ),
    ("`M/ps`, `M/memory` while a machine is not started", "412"),
    ("snapshots of volumes", "copies of the directory, at once and not once a day"),
    ("host failures: `host_status`, migration, standbys", "never happen; `standbys` is kept as is"),
    ("deploy, launch, ssh, console, proxy, logs of flyctl", "their services are not here"),
    ("organizations", "one springs into being with its first app; there are no roles"),
    ("trial limits, billing, quotas", "none"),
    (
        "memory of a suspended machine",
        (
            "stays in this computer's memory; lost when the emulator "
            "ends, and then the machine boots cold with its files kept"
        ),
    ),
    ("`schedule`", "the interval is exact, not fuzzy"),
)


def short(path: str) -> str:
    """A path with Fly's common prefixes cut to `A` and `M`."""
    path = re.sub(r"^/v1/apps/\{app\}/machines/\{machine\}", "M", path)
    path = re.sub(r"^/v1/apps/\{app\}", "A", path)
    return path.replace(":path", "")


def operations() -> list[str]:
    """Every operation, in the form of an area."""
    return [f"{method} {short(path)}" for method, path in OPERATIONS]


def collect() -> list[Behaviour]:
    """All behaviours that the tests beside this module show."""
    package = importlib.import_module(__package__ or "tests.emulator")
    for module in pkgutil.iter_modules(package.__path__):
        if module.name.startswith("test_"):
            importlib.import_module(f"{package.__name__}.{module.name}")
    # The order of import differs from run to run, that within a module does not.
    return sorted(BEHAVIOURS, key=lambda item: item.test.partition(".")[0])


def page() -> str:
    """The text of the page."""
    behaviours = collect()
    lines = [
        "# How close the emulator is to Fly",
        "",
        "Made by `python -m tests.emulator.fidelity`; every row is shown by the test that it names",
        "(in `tests/emulator/`). Every answer of every test is also checked against a written",
        "shape (`tests/emulator/schema.py`). `A` is `/v1/apps/{app}`, `M` is",
        "`A/machines/{machine}`.",
        "",
        "| source | is |",
        "|---|---|",
        *(f"| {key} | {text} |" for key, text in SOURCES.items()),
        "",
        "## Operations",
        "",
    ]
    order = operations()
    areas = list(dict.fromkeys(order + [item.area for item in behaviours]))
    for area in areas:
        rows = [item for item in behaviours if item.area == area]
        if area == areas[len(order)] if len(areas) > len(order) else False:
            lines += ["## Behaviour across operations", ""]
        lines += [f"### {area}", "", "| behaviour | source | test |", "|---|---|---|"]
        lines += [f"| {item.text} | {item.source} | `{item.test}` |" for item in rows]
        lines.append("")
    lines += ["## Gaps", "", "| what | here |", "|---|---|"]
    lines += [f"| {what} | {here} |" for what, here in GAPS]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    # Imported under its package name, where the tests register what they show.
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(importlib.import_module("tests.emulator.fidelity").page())
