"""Whether machines still answer what their recordings say."""

from __future__ import annotations

import base64
import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from pytest_flymachines.cassettes.catalog import Entry
from pytest_flymachines.cassettes.commands import said, verb_of
from pytest_flymachines.cassettes.identities import Identities
from pytest_flymachines.cassettes.jsons import json_value
from pytest_flymachines.cassettes.meaning import (
    Meaning,
    answer_meaning,
    meaning,
    target,
)
from pytest_flymachines.cassettes.volatile import BODIES, WEBSOCKET

__all__ = ["Step", "differences", "steps"]

_POLL = re.compile(r"POST .*/agent/processes/.+/poll")
_STREAMS = ("stdout", "stderr")
# names that machines make up: processes, staged files, workspaces
_MADE_UP = re.compile(r"\b([psw])\d+-[0-9a-f]{4,8}\b|(?<=/workspaces/)(w)\d+\b")
# seconds since the epoch, as `stat` and `list` of the runner tell them
_TIME = re.compile(r"\b\d{9,11}(\.\d+)?\b")
_TIMED = frozenset({"stat", "list"})
_DAY, _MONTH = (
    "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)",
    "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)",
)
_HOUR = r"\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?"
# moments, as ISO 8601, servers' logs, mails and `date` write them
_MOMENT = re.compile(
    rf"\b\d{{4}}-\d\d-\d\d[T ]{_HOUR}(?:Z|\b ?[+-]\d\d:?\d\d)?"
    rf"|\b\d\d/{_MONTH}/\d{{4}}[: ]{_HOUR}(?: [+-]\d{{4}})?"
    rf"|\b{_DAY},? (?:\d\d? {_MONTH}|{_MONTH} +\d\d?)(?: \d{{4}})? {_HOUR}"
    r"(?: [A-Z]{3,4}\b)?(?: \d{4}\b)?"
)
# about a packed tree, whose size and digest depend on the times in it
_PACKED = re.compile(r"^(\S+) \d+ (\w+) [0-9a-f]{64}$", re.MULTILINE)
_TREE_VERBS = frozenset({"stage", "spool"})
# what waits for a port asks for its process, too; see `sandbox/processes.py`
_PROBE = "pid=$2"


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
    """The steps of a recording.

    How often a process was polled is no part of its meaning, and what it wrote counts once it
    has ended: before that, it is a matter of time how much that is.
    """
    reader = _Reader(Identities(entry.header.get("machines")))
    found: list[tuple[str, int, Any]] = []
    for request, response in zip(entry.requests, entry.responses, strict=True):
        service = response.get("recorded", {}).get("service", "")
        asked = meaning(
            request.method,
            request.uri,
            request.body or b"",
            service=service,
            rename=reader.known.rename,
        )
        body = response["body"]["string"] or b""
        verb = verb_of(json_value(request.body or b""))
        if service == WEBSOCKET:
            came: Any = _conversation(body)
        else:
            came = _answer(body, verb)
            if BODIES.fullmatch(f"{request.method} {target(request.uri)}") and isinstance(
                came, dict
            ):
                came.pop("size", None)  # of the repository, packed anew by each git
        if step := reader.step(asked, came, poll=verb == "poll" or bool(_POLL.match(asked.line))):
            found.append((step, response["status"]["code"], came))
    reader.forget_unfinished()
    for words, status, what in found:
        data = what if isinstance(what, bytes) else msgspec.json.encode(what)
        yield Step(words, reader.renamed(f"status {status}\n{_shown(data)}"))


@dataclass
class _Reader:
    """Follows a recording.

    Attributes:
        known: The machines.
    """

    known: Identities
    _processes: dict[str, dict[str, Any]] = field(default_factory=dict)
    _names: dict[str, str] = field(default_factory=dict)

    def step(self, asked: Meaning, came: Any, *, poll: bool) -> str:
        """The words of what was asked; empty for a poll whose news went to a step before."""
        name = came.get("id") if isinstance(came, dict) and "stdout" in came else None
        if not poll or not isinstance(name, str):
            if isinstance(name, str):
                self._processes[name] = came
            return self.renamed("\n".join(asked.lines()))
        if name in self._processes:
            _add(self._processes[name], came)
        return ""  # a wider fixture started it

    def forget_unfinished(self) -> None:
        """Drop the output of what was still running at the end."""
        for process in self._processes.values():
            for stream in _STREAMS if process.get("running") else ():
                process[stream] = process[f"{stream}_size"] = "..."

    def renamed(self, text: str) -> str:
        """Text with the names that machines made up numbered as they appear."""
        text = _MOMENT.sub("{moment}", self.known.rename(text))
        if _PROBE in text:
            for process in self._processes.values():
                if pid := process.get("pid"):
                    text = re.sub(rf'(?<=[" ]){pid}(?=[" ])', "{pid}", text)
        return _MADE_UP.sub(self._number, text)

    def _number(self, match: re.Match[str]) -> str:
        kind = match[1] or match[2]
        same = sum(name.startswith(f"{{{kind}") for name in self._names.values())
        return self._names.setdefault(match[0], f"{{{kind} {same + 1}}}")


def _answer(body: bytes, verb: str) -> Any:
    """The value of an answer; what our runner says looks like what the agent says."""
    value = json_value(body)
    if not verb or not isinstance(value, dict) or not isinstance(value.get("stdout"), str):
        return body if value is None else value
    answer = said(value)
    if answer is None:
        return value
    if answer.process:
        answer.process["stdout"] = _PACKED.sub(r"\1 \2", answer.process["stdout"])
        return answer.process
    words = "" if verb in _TREE_VERBS else " ".join(answer.words)
    texts = [words, *(answer_meaning(block) for block in answer.blocks)]
    told = [_TIME.sub("TIME", text) if verb in _TIMED else text for text in texts]
    return {"exit_code": value.get("exit_code"), "stderr": value.get("stderr"), "said": told}


def _conversation(body: bytes) -> dict[str, Any]:
    """A WebSocket's frames: what was sent, and what came, in however many pieces."""
    sent, shown, others = [], b"", []
    for frame in json_value(body) or []:
        if "sent" in frame:
            sent.append(frame["sent"])
            continue
        came = frame.get("received")
        if isinstance(came, dict) and came.get("type") == "output":
            shown += base64.b64decode(came.get("data") or "")
        else:
            others.append(came)
    return {"sent": sent, "shown": shown.decode("utf-8", "replace"), "received": others}


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
