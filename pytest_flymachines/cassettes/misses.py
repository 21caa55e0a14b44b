"""What to tell when replay has no answer: what was asked, what comes nearest, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from pytest_flymachines.cassettes.meaning import Meaning, likeness
from pytest_flymachines.errors import CassetteMiss

if TYPE_CHECKING:
    from pytest_flymachines.cassettes.scopes import Scope, Scopes
    from pytest_flymachines.cassettes.tape import Playback

__all__ = ["Asker", "CassetteMissing", "Misses", "no_owner", "other_specs"]

_MOST_LINES = 40
_MOST_SPECS = 5
_LONGEST_LINE = 1000


class CassetteMissing(CassetteMiss):
    """There is no cassette at all: this was never recorded."""


@dataclass(frozen=True)
class Asker:
    """Whose request had no answer.

    Attributes:
        owner: Who, as people call it.
        path: Its cassette.
        command: What records it again.
    """

    owner: str
    path: Path
    command: str

    def no_cassette(self, wanted: Meaning, notes: Sequence[str] = ()) -> CassetteMissing:
        """For an owner that was never recorded."""
        lines = (
            f"{self.owner} was never recorded: there is no {self.path} to answer",
            f"    {wanted.line}",
            *notes,
            f"Record it with: {self.command}",
            "Run it on a machine without recording: pytest --fly-sandbox",
        )
        return CassetteMissing("\n".join(lines))

    def no_answer(self, wanted: Meaning, tape: Playback, notes: Sequence[str]) -> CassetteMiss:
        """For a request that its cassette does not hold."""
        return self._miss([f"    {wanted.line}", *_nearest(wanted, tape), *notes])

    def no_frame(self, wanted: Meaning, recorded: Meaning | None) -> CassetteMiss:
        """For a WebSocket frame that is not the recorded one."""
        if recorded is None:
            return self._miss([wanted.body, "All recorded frames were sent before it."])
        return self._miss(_diff(recorded, wanted, "recorded"))

    def _miss(self, lines: Sequence[str]) -> CassetteMiss:
        head = f"{self.owner} now asks something that {self.path} has no answer for:"
        todo = f"If that is what it should do now, record it again with: {self.command}"
        return CassetteMiss("\n".join([head, *lines, todo]))


class Misses:
    """What to tell of the requests of a replay that have no answer.

    Args:
        scopes: Whose requests there are.
        command: Makes the command that records a test again from its node id.
        rootdir: What the paths of cassettes are told from.
        note: What else to tell with what was never recorded.

    Attributes:
        any: Whether there was one.
    """

    def __init__(
        self, scopes: Scopes, command: Callable[[str], str], rootdir: Path | None, note: str
    ) -> None:
        self._scopes = scopes
        self._command = command
        self._rootdir = rootdir
        self._note = note
        self.any = False

    def of_answer(self, scope: Scope, wanted: Meaning) -> CassetteMiss:
        """For a request that has no answer."""
        asker = self._asker(scope)
        if scope.tape is None:
            notes = [self._note] if self._note else []
            if scope.key.kind == "sandbox":
                notes += other_specs(scope.header.get("spec", {}), scope.path.parent)
            return self._noted(scope, asker.no_cassette(wanted, notes))
        return self._noted(scope, asker.no_answer(wanted, scope.tape, self._mixture(scope.tape)))

    def of_frame(self, scope: Scope, wanted: Meaning, recorded: Meaning | None) -> CassetteMiss:
        """For a WebSocket frame that is not the recorded one."""
        return self._noted(scope, self._asker(scope).no_frame(wanted, recorded))

    def _noted(self, scope: Scope, miss: CassetteMiss) -> CassetteMiss:
        """Note the first one: what comes after it may be a consequence."""
        if not scope.misses:
            scope.misses.append(miss)
        self.any = True
        return miss

    def _asker(self, scope: Scope) -> Asker:
        # a wider fixture is torn down in a test that may have nothing to do with it
        test = scope.origin if scope.origin is not None else self._scopes.test()
        owner = scope.key.label
        if scope.key.kind == "sandbox":
            owner = f"provisioning the sandbox {owner}"
        if test and scope.key != test:
            owner += f" (first needed by {test.label})"
        path = scope.path
        if self._rootdir is not None and path.is_relative_to(self._rootdir):
            path = path.relative_to(self._rootdir)
        return Asker(owner, path, self._command(test.label if test else ""))

    def _mixture(self, tape: Playback) -> list[str]:
        """Whether what a test builds on was recorded in another run than the test."""
        others = [
            other.key.label
            for other in self._scopes.all()
            if other.tape is not None and other.tape.header.get("run") != tape.header.get("run")
        ]
        if not others:
            return []
        told = f"It was recorded in another run than {', '.join(others)}: if the test uses "
        return [told + "what that found out, record all tests that use it in one run."]


def no_owner(wanted: Meaning) -> CassetteMiss:
    """For a request that no test made."""
    return CassetteMiss(
        f"replay was asked {wanted.line} while no test and no fixture was running, so no "
        "cassette can hold the answer; make the request in a test or a fixture"
    )


def other_specs(wanted: Mapping[str, object], folder: Path) -> list[str]:
    """Which specs are recorded, for a user whose options ask for another one.

    Args:
        wanted: The fields of the spec that is asked for, those that are not the default.
        folder: Where the cassettes of provisionings are.
    """
    specs = [spec for path in folder.glob("*.yaml") if (spec := _spec_of(path)) is not None]
    recorded = [_facts(spec) for spec in sorted(specs, key=lambda spec: _distance(wanted, spec))]
    if not recorded:
        return []
    shown = [f"    {text}" for text in recorded[:_MOST_SPECS]]
    if len(recorded) > _MOST_SPECS:
        shown.append(f"    ... ({len(recorded) - _MOST_SPECS} more)")
    return [
        f"It is a sandbox with {_facts(wanted)}. Recorded are those with",
        *shown,
        "If one of them is meant, give the options that it was recorded with.",
    ]


def _spec_of(path: Path) -> dict[str, object] | None:
    """The spec in the header of a cassette; None if it has none to tell."""
    with suppress(OSError, ValueError, yaml.YAMLError), path.open(encoding="utf-8") as file:
        head = yaml.safe_load("".join(takewhile(lambda line: line != "interactions:\n", file)))
        match head:
            case {"recording": {"sandbox": _, "machine": _}}:
                return None
            case {"recording": {"sandbox": _, "spec": dict(spec)}}:
                return spec
            case {"recording": {"sandbox": _}}:
                return {}
    return None


def _distance(one: Mapping[str, object], other: Mapping[str, object]) -> tuple[int, str]:
    """In how many fields two specs differ; the text makes an order of those that do in as many."""
    return sum(repr(one.get(n)) != repr(other.get(n)) for n in {*one, *other}), _facts(other)


def _facts(spec: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in sorted(spec.items())) or "the defaults"


def _nearest(wanted: Meaning, tape: Playback) -> list[str]:
    """The recorded request that is most like the wanted one, and how they differ."""
    left = {id(request) for request in tape.unused()}
    best: tuple[float, Meaning, bool] | None = None
    for request, _ in tape.data:
        score = likeness(wanted, request.meaning) + 0.05 * (id(request) in left)
        if best is None or score > best[0]:
            best = (score, request.meaning, id(request) in left)
    if best is None:
        return ["The cassette is empty."]
    _, nearest, unused = best
    if nearest == wanted:
        times = sum(request.meaning == wanted for request, _ in tape.data)
        often = f"{times} time{'s' if times > 1 else ''}"
        return [f"This very request was recorded {often}, and asked for more often than that now."]
    state = "not asked for yet" if unused else "already replayed"
    shown = _diff(nearest, wanted, f"recorded ({state})")
    return ["The nearest recorded request differs like this:", *shown]


def _diff(recorded: Meaning, wanted: Meaning, name: str) -> list[str]:
    diff = difflib.unified_diff(
        recorded.lines(), wanted.lines(), name, "asked now", n=2, lineterm=""
    )
    shown = [line if len(line) <= _LONGEST_LINE else line[:_LONGEST_LINE] + "..." for line in diff]
    if len(shown) > _MOST_LINES:
        shown = [*shown[:_MOST_LINES], f"... ({len(shown) - _MOST_LINES} more lines)"]
    return [f"    {line}" for line in shown]
