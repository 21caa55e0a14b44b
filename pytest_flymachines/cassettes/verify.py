"""Whether machines still answer what their recordings say."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from pytest_flymachines.cassettes.catalog import Entry
from pytest_flymachines.cassettes.identities import Identities
from pytest_flymachines.cassettes.meaning import answer_meaning, json_value, meaning

__all__ = ["Step", "differences", "steps"]

_POLL = re.compile(r"POST .*/agent/processes/[^/]+/poll")
_STREAMS = ("stdout", "stderr")


@dataclass
class Step:
    """Something that a test asked, and what came of it.

    Attributes:
        asked: The request's meaning, on several lines.
        came: The answer's, with everything that polling brought later.
    """

    asked: str
    came: str


def differences(old: Entry, new: Entry) -> list[str]:
    """What differs in meaning between two recordings of one owner, for people."""
    before, after = list(steps(old)), list(steps(new))
    matcher = difflib.SequenceMatcher(
        None, [step.asked for step in before], [step.asked for step in after], False
    )
    lines: list[str] = []
    for what, i1, i2, j1, j2 in matcher.get_opcodes():
        if what == "equal":
            for one, other in zip(before[i1:i2], after[j1:j2], strict=True):
                if one.came != other.came:
                    lines += [one.asked.partition("\n")[0], *_diff(one.came, other.came)]
            continue
        lines += [f"no longer asked: {_first(step)}" for step in before[i1:i2]]
        lines += [f"asked now: {_first(step)}" for step in after[j1:j2]]
    return lines


def steps(entry: Entry) -> Iterator[Step]:
    """The steps of a recording; how often a process was polled is no part of its meaning."""
    known = Identities(entry.header.get("machines"))
    processes: dict[str, dict[str, Any]] = {}
    found: list[tuple[str, int, Any]] = []
    for request, response in zip(entry.requests, entry.responses, strict=True):
        service = response.get("recorded", {}).get("service", "")
        asked = meaning(
            request.method, request.uri, request.body or b"", service=service, rename=known.rename
        )
        body = response["body"]["string"] or b""
        value = json_value(body)
        process = value.get("id") if isinstance(value, dict) and "stdout" in value else None
        if process in processes and _POLL.fullmatch(asked.line):
            _add(processes[process], value)
            continue
        if isinstance(process, str):
            processes[process] = value
        status = response["status"]["code"]
        found.append(("\n".join(asked.lines()), status, body if value is None else value))
    for words, status, what in found:
        data = what if isinstance(what, bytes) else msgspec.json.encode(what)
        yield Step(words, f"status {status}\n{known.rename(_shown(data))}")


def _add(process: dict[str, Any], news: dict[str, Any]) -> None:
    """What a poll told, on top of what was known of a process."""
    for name, value in news.items():
        both_text = isinstance(value, str) and isinstance(process.get(name), str)
        process[name] = process[name] + value if name in _STREAMS and both_text else value


def _shown(body: bytes) -> str:
    text = answer_meaning(body)
    return msgspec.json.format(text, indent=2) if text[:1] in ("{", "[") else text


def _first(step: Step) -> str:
    return " ".join(line.strip() for line in step.asked.splitlines())[:300]


def _diff(old: str, new: str) -> list[str]:
    diff = difflib.unified_diff(
        old.splitlines(), new.splitlines(), "recorded", "now", n=1, lineterm=""
    )
    return [f"  {line[:500]}" for line in diff]
