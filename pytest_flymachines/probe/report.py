"""What came of the checks, as JSON or Markdown that can be sent in."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_flymachines import __version__
from pytest_flymachines.probe.masks import Mask
from pytest_flymachines.probe.registry import SOURCES, Check
from pytest_flymachines.probe.trial import Comparison
from pytest_flymachines.probe.wire import Answer

__all__ = ["VERDICTS", "Outcome", "Report"]

VERDICTS = {
    "differs": "not as the reference says",
    "recorded": "no source said it; this is the answer",
    "not run": "could not be told",
    "same": "as the reference says",
}

_BODY = 3000
_SENT = 600
_EXCHANGES = 20
_OVERLAP = 4000


@dataclass(frozen=True)
class Outcome:
    """What came of one check.

    Attributes:
        check: Which.
        verdict: One of `VERDICTS`.
        why: Why it could not be told.
        comparisons: With what is expected.
        notes: Answers to what is unknown.
        exchanges: Raw requests and answers.
    """

    check: Check
    verdict: str
    why: str = ""
    comparisons: Sequence[Comparison] = ()
    notes: dict[str, Any] = field(default_factory=dict)
    exchanges: Sequence[Answer] = ()


@dataclass(kw_only=True)
class Report:
    """One probe.

    Attributes:
        server: Base URL of the API.
        started: RFC 3339.
        outcomes: In the order of the checks.
        seconds: How long it took.
        machines: How many it made.
        left: What could not be taken away.
        advice: Why no machine could be made, and what to do; empty if some were.
    """

    server: str
    started: str
    outcomes: list[Outcome] = field(default_factory=list)
    seconds: float = 0.0
    machines: int = 0
    left: list[str] = field(default_factory=list)
    advice: str = ""

    def count(self, verdict: str) -> int:
        """How many checks ended so."""
        return sum(outcome.verdict == verdict for outcome in self.outcomes)

    def summary(self) -> str:
        """One line."""
        return (
            f"{len(self.outcomes)} checks: {self.count('same')} as the reference says, "
            f"{self.count('differs')} different, {self.count('recorded')} recorded (no source "
            f"said), {self.count('not run')} could not be told"
        )

    def differences(self, mask: Mask) -> list[str]:
        """What differs, a line each."""
        return [
            mask.text(
                f"{outcome.check.name}: {item.what}: expected {item.expected}, "
                f"observed {_short(item.observed, 300)}"
            )
            for outcome in self.outcomes
            for item in outcome.comparisons
            if not item.holds
        ]

    def data(self, mask: Mask) -> dict[str, Any]:
        """The whole report as a JSON value, masked."""
        order = list(VERDICTS)
        outcomes = sorted(self.outcomes, key=lambda outcome: order.index(outcome.verdict))
        return {
            "what": "pytest-flymachines probe",
            "version": __version__,
            "server": mask.text(self.server),
            "started": self.started,
            "seconds": round(self.seconds),
            "machines": self.machines,
            "summary": self.summary(),
            "left": [mask.text(line) for line in self.left],
            "advice": mask.text(self.advice),
            "checks": [_outcome(outcome, mask) for outcome in outcomes],
        }

    def write(self, path: Path, mask: Mask) -> None:
        """Write it, as Markdown if the name ends in `.md`, else as JSON.

        Raises:
            Leak: It would show a secret; nothing is written.
            OSError: It cannot be written.
        """
        data = self.data(mask)
        markdown = path.suffix.lower() in (".md", ".markdown")
        text = _markdown(data) if markdown else json.dumps(data, indent=2) + "\n"
        mask.check(text)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def _outcome(outcome: Outcome, mask: Mask) -> dict[str, Any]:
    check = outcome.check
    shown: dict[str, Any] = {
        "check": check.name,
        "title": check.title,
        "verdict": outcome.verdict,
        "source": check.source,
        "section": check.section,
    }
    if outcome.why:
        shown["why"] = mask.text(outcome.why)
    if outcome.notes:
        shown["notes"] = mask.value(outcome.notes)
    if outcome.verdict == "same":
        return shown
    if wrong := [item for item in outcome.comparisons if not item.holds]:
        shown["differences"] = [
            {
                "what": item.what,
                "expected": mask.value(item.expected),
                "observed": mask.value(item.observed),
            }
            for item in wrong
        ]
    shown["exchanges"] = [_exchange(answer, mask) for answer in outcome.exchanges[-_EXCHANGES:]]
    return shown


def _exchange(answer: Answer, mask: Mask) -> dict[str, Any]:
    return {
        "request": mask.text(f"{answer.method} {answer.path}"),
        "sent": _masked(answer.sent, _SENT, mask),
        "status": answer.status,
        "headers": mask.value(dict(answer.headers)),
        "body": _masked(answer.text, _BODY, mask),
        "seconds": round(answer.seconds, 2),
    }


def _masked(text: str, most: int, mask: Mask) -> str:
    """Cut after it was masked, so that no half of a secret stays; a mask takes long for much."""
    size = len(text)
    return _short(mask.text(text[: most + _OVERLAP])[: most + 1], most, size)


def _short(value: object, most: int, size: int = 0) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= most else f"{text[:most]}... ({size or len(text)} characters)"


def _markdown(data: dict[str, Any]) -> str:
    lines = [
        f"# {data['what']} {data['version']}",
        "",
        (
            f"Server `{data['server']}`, {data['started']}, {data['seconds']} s, "
            f"{data['machines']} machines."
        ),
        "",
        data["summary"] + ".",
        "",
        *([data["advice"], ""] if data["advice"] else []),
        *(f"- LEFT: {line}" for line in data["left"]),
    ]
    for verdict, meaning in VERDICTS.items():
        found = [item for item in data["checks"] if item["verdict"] == verdict]
        if not found:
            continue
        lines += [f"## {verdict}: {meaning}", ""]
        if verdict == "same":
            lines += ["| check | what | source |", "|---|---|---|"]
            lines += [
                f"| {item['check']} | {item['title']} | {item['source']} {item['section']} |"
                for item in found
            ]
            lines.append("")
            continue
        for item in found:
            lines += _section(item)
    lines += ["## Sources", "", "| source | is |", "|---|---|"]
    lines += [f"| {name} | {meaning} |" for name, meaning in SOURCES.items()]
    return "\n".join(lines) + "\n"


def _section(item: dict[str, Any]) -> list[str]:
    lines = [
        f"### {item['check']}",
        "",
        f"{item['title']} ({item['source']} {item['section']})",
        "",
    ]
    if "why" in item:
        lines += [f"Could not be told: {item['why']}", ""]
    for difference in item.get("differences", ()):
        lines.append(
            f"- {difference['what']}: expected `{_short(difference['expected'], 300)}`, "
            f"observed `{_short(difference['observed'], 600)}`"
        )
    for what, value in item.get("notes", {}).items():
        lines.append(f"- {what!r}: `{_short(value, 1200)}`")
    if item.get("exchanges"):
        shown = "\n".join(json.dumps(exchange) for exchange in item["exchanges"])
        lines += ["", "<details><summary>raw</summary>", "", "```", shown, "```", "", "</details>"]
    return [*lines, ""]
