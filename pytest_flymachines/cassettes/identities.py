"""The ids of machines and processes, and the names that stand for them in a comparison.

A test that was recorded on one machine must replay beside a provisioning that was recorded on
another, and so must a test whose session fixture started a server once in each worker. So the
ids that a scope made are known by the scope: the first machine of a spec is that spec's,
whatever its id.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Mapping
from typing import Any

from pytest_flymachines.cassettes.jsons import json_value

__all__ = ["EXISTING", "FACTS", "Identities", "created", "started"]

#: What a machine that was there before the run is called.
EXISTING = "existing machine"
FACTS = ("id", "instance_id", "private_ip", "name")
# not as a machine's id, because its length may differ
_PROCESS = "process"
_SHORTEST = 8
_STARTS = re.compile(r"POST /v1/apps/[^/]+/machines/[^/]+/exec")
# what the runner says first about a process; see `_tell` in sandbox/runner.sh
_RUNNER_SAYS = re.compile(r"(p\d+-[0-9a-f]{8}) \d+ (?:-|\d+) \d+ \d+ \d+ -")
_CREATES = re.compile(r"POST /v1/apps/[^/]+/(?:machines|volumes)")

Facts = Mapping[str, str]


class Identities:
    """Ids of machines and volumes. Thread-safe.

    Attributes:
        known: Ids by what they are, by alias.
    """

    def __init__(self, known: Mapping[str, Facts] | None = None) -> None:
        self._lock = threading.Lock()
        self.known: dict[str, Facts] = dict(known or {})
        self._names: dict[str, str] = {}
        self._pattern: re.Pattern[str] | None = None
        for alias, facts in self.known.items():
            self._name(alias, facts)

    def learn(self, alias: str, facts: Facts) -> None:
        """Remember that `alias` has these ids now; older ids of it stay known too."""
        with self._lock:
            self.known[alias] = {k: v for k, v in facts.items() if k in (*FACTS, _PROCESS) and v}
            self._name(alias, self.known[alias])
            self._pattern = None

    def rename(self, text: str) -> str:
        """Text with aliases in place of ids."""
        pattern = self._pattern
        if pattern is None:
            with self._lock:
                longest_first = sorted(self._names, key=len, reverse=True)
                pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
                self._pattern = pattern
        return pattern.sub(lambda match: self._names[match[0]], text)

    def mentioned(self, texts: Iterable[bytes]) -> dict[str, dict[str, str]]:
        """The facts that occur in `texts`, for the header of their cassette."""
        known = [(alias, facts.items()) for alias, facts in sorted(self.known.items())]
        seen = {
            (alias, fact)
            for text in texts
            for alias, facts in known
            for fact, value in facts
            if value.encode() in text
        }
        found = {
            alias: {fact: value for fact, value in facts if (alias, fact) in seen}
            for alias, facts in known
        }
        return {alias: facts for alias, facts in found.items() if facts}

    def today(self, body: bytes, now: Identities) -> bytes:
        """A body with the ids that `now` knows; sizes and offsets in it stay true."""
        for alias, facts in self.known.items():
            today = now.known.get(alias, {})
            for fact, old in facts.items():
                new = today.get(fact, old)
                if new != old and (len(new) == len(old) or fact == _PROCESS):
                    body = body.replace(old.encode(), new.encode())
        return body

    def _name(self, alias: str, facts: Facts) -> None:
        for fact, value in facts.items():
            if len(value) >= _SHORTEST:
                self._names[value] = f"{{{alias} {fact}}}"


def created(method: str, path: str, status: int, body: bytes) -> dict[str, str] | None:
    """The ids of a machine or volume that this exchange made; None if it made none."""
    if status >= 300 or not _CREATES.fullmatch(f"{method} {path}"):
        return None
    value: Any = json_value(body)
    if not isinstance(value, dict) or not isinstance(value.get("id"), str):
        return None
    return {name: value[name] for name in FACTS if isinstance(value.get(name), str)}


def started(method: str, path: str, status: int, body: bytes) -> dict[str, str] | None:
    """The name of a process that this exchange started; None if it started none."""
    if status >= 300 or not _STARTS.fullmatch(f"{method} {path}"):
        return None
    value: Any = json_value(body)
    if not isinstance(value, dict):
        return None
    if isinstance(name := value.get("id"), str):
        return {_PROCESS: name}
    said = _RUNNER_SAYS.match(str(value.get("stdout")))
    return {_PROCESS: said[1]} if said else None
