"""Polls of a process that a wider fixture started, from tests in any order.

A poll says how much of the output was read before, and that depends on which tests came first.
So where polls of such a process are compared these offsets are left out, and the sizes in a
recorded answer are moved to where the asker is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import msgspec

from pytest_flymachines.cassettes.jsons import json_value
from pytest_flymachines.cassettes.meaning import Meaning

__all__ = ["Offsets", "moved", "without_offsets"]

# how `Identities` calls such a process
_SHARED = " process}"
_AGENT = re.compile(r"POST .*/agent/processes/\{[^}]* process\}/poll")
# the runner's verb among the words that are compared, then name and offsets
_VERB, _NAME, _OUT, _ERR = 6, 7, 8, 9
_STREAMS = ("stdout", "stderr")
_RUNNER_SIZES = re.compile(r"((?:\S+ ){3})(\d+) (\d+)(.*\n)")
_NOTHING = ".\n.\n"


@dataclass(frozen=True)
class Offsets:
    """How much of each stream was read before."""

    stdout: int
    stderr: int


def without_offsets(asked: Meaning) -> tuple[Meaning, Offsets | None]:
    """What a request means, and the offsets if it polls a process of a wider fixture."""
    if not (asked.line + asked.body).count(_SHARED):
        return asked, None
    value: Any = json_value(asked.body.encode("utf-8", "surrogateescape"))
    if not isinstance(value, dict):
        return asked, None
    if _AGENT.fullmatch(asked.line):
        offsets = Offsets(value.pop("stdout", 0), value.pop("stderr", 0))
        return asked._replace(body=_text(value)), offsets
    command = value.get("command")
    if not isinstance(command, list) or len(command) <= _ERR:
        return asked, None
    if command[_VERB] != "poll" or not command[_NAME].endswith(_SHARED):
        return asked, None
    offsets = Offsets(int(command[_OUT]), int(command[_ERR]))
    value["command"] = command[:_OUT] + command[_ERR + 1 :]
    return asked._replace(body=_text(value)), offsets


def moved(body: bytes, recorded: Offsets, asked: Offsets, *, again: bool) -> bytes:
    """The answer to a poll, as it would be for who has read so much.

    Args:
        body: The recorded answer.
        recorded: What had been read then.
        asked: What has been read now.
        again: This answer was given before, so there is nothing new.
    """
    value: Any = json_value(body)
    if not isinstance(value, dict):
        return body
    if isinstance(value.get("id"), str):
        for stream in _STREAMS:
            before, now = getattr(recorded, stream), getattr(asked, stream)
            value[f"{stream}_size"] = now if again else value[f"{stream}_size"] + now - before
            value[stream] = "" if again else value[stream]
    elif match := _RUNNER_SIZES.match(str(value.get("stdout"))):
        out, err = int(match[2]) - recorded.stdout, int(match[3]) - recorded.stderr
        rest = _NOTHING if again else value["stdout"][match.end() :]
        out, err = (0, 0) if again else (out, err)
        sizes = f"{out + asked.stdout} {err + asked.stderr}"
        value["stdout"] = f"{match[1]}{sizes}{match[4]}{rest}"
    return msgspec.json.encode(value)


def _text(value: Any) -> str:
    return msgspec.json.encode(value, order="deterministic").decode()
