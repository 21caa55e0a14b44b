"""What the texts of an exchange are: output, files and trees that travel in pieces, and commands.

By the agent's HTTP they are bodies and texts of JSON; over the Machines API alone, words and
blocks of the runner (`sandbox/runner.sh`); with a foreign agent, frames of a WebSocket.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeAlias
from urllib.parse import parse_qs

from vcr.request import Request

from pytest_flymachines.cassettes.carriers import BASE64, BLOCK, TEXT, argument
from pytest_flymachines.cassettes.commands import verb_of
from pytest_flymachines.cassettes.meaning import target
from pytest_flymachines.cassettes.packing import TAIL_BYTES
from pytest_flymachines.cassettes.parts import Body, Found, Way
from pytest_flymachines.cassettes.streams import Place
from pytest_flymachines.cassettes.volatile import (
    RUNNER_DATA,
    RUNNER_MODE,
    RUNNER_OFFSET,
    RUNNER_SCRIPT,
    RUNNER_TREE,
    RUNNER_VERB,
    WEBSOCKET,
)

__all__ = ["ANSWERS", "REQUESTS", "TREES", "Exchange", "bodies"]

Exchange: TypeAlias = tuple[Request, dict[str, Any]]
Locate: TypeAlias = Callable[[Way], Found]

# what names of streams begin with
ANSWERS = "answers"
REQUESTS = "requests"
TREES = "trees"

_PROCESS = re.compile(r"POST .*/(?:exec|agent/processes(?:/[^/]+/poll)?)")
_STDIN = re.compile(r"POST .*/agent/processes/([^/]+)/stdin(?:\?.*)?")
_APPEND = re.compile(r"POST .*/agent/files/append\?(.*)")
# bodies that are the content of files, whatever they look like
_SENT = re.compile(r".*/agent/(files|trees|files/append|processes/[^/]+/stdin)(\?.*)?")
_GOT = re.compile(r".*/agent/(files/read|trees/get)")
_READ = re.compile(r"POST .*/agent/files/read")
_STREAMS = ("stdout", "stderr")
_NAME = RUNNER_VERB + 1


def bodies(number: int, exchange: Exchange) -> tuple[Body, Body]:
    """Request and answer, understood.

    Args:
        number: Tells this exchange from the others.
        exchange: The two.
    """
    request, response = exchange
    service = response.get("recorded", {}).get("service", "")
    line = f"{request.method} {target(request.uri)}"
    theirs = service not in ("", WEBSOCKET)
    asked = Body(request, "body", opaque=theirs or bool(_SENT.fullmatch(line)))
    answered = Body(response["body"], "string", opaque=theirs or bool(_GOT.fullmatch(line)))
    if service == WEBSOCKET:
        answered.locate = _frames(number)
    elif not service and verb_of(asked.value):
        command, said = asked.value["command"], answered.open_blocks()
        asked.locate = _to_runner(command, said)
        answered.locate = _from_runner(command, said)
    elif not service:
        asked.locate = _to_agent(line, answered.value)
        tail = TAIL_BYTES if response["headers"].get("x-content-sha256") == ["tail"] else 0
        answered.locate = _from_agent(line, asked.value, answered.value, tail)
    return asked, answered


def _to_runner(command: list[str], said: list[str]) -> Locate:
    verb = command[RUNNER_VERB]

    def locate(way: Way) -> Found:
        if way[:1] != ("command",) or way[1] not in RUNNER_DATA.get(verb, ()):
            return Found()
        word = command[int(way[1])]
        codec = argument(word, escaped=command[RUNNER_MODE] == "%")
        place = None
        if verb == "stage":
            kind = TREES if command[-1] == RUNNER_TREE else REQUESTS
            name = command[_NAME] or (said[0] if said else "")
            place = Place((kind, "staged", name), _number(command, _NAME + 1))
        elif verb in ("write", "append") and not word.startswith("@"):
            place = Place((REQUESTS, verb, command[_NAME]))
        return Found(codec, place, verb == "start" and way[1] == RUNNER_SCRIPT)

    return locate


def _from_runner(command: list[str], said: list[str]) -> Locate:
    verb = command[RUNNER_VERB]
    offset = RUNNER_OFFSET.get(verb)

    def locate(way: Way) -> Found:
        # the first line is no block, nor is what follows the last
        block = int(way[1]) - 1 if way[:1] == ("stdout",) and len(way) > 1 and said else -1
        if block < 0 or way[1:] == (0,):
            return Found()
        if verb in ("start", "poll") and block < len(_STREAMS):
            at = 0 if offset is None else _number(command, offset + block)
            return Found(BLOCK, Place((ANSWERS, "process", said[0], _STREAMS[block]), at))
        if verb in ("read", "spool") and block == 0 and offset is not None:
            return Found(BLOCK, Place((ANSWERS, verb, command[_NAME]), _number(command, offset)))
        return Found(BLOCK)

    return locate


def _number(command: list[str], at: int) -> int | None:
    return int(command[at]) if len(command) > at and command[at].isdigit() else None


def _to_agent(line: str, answer: Any) -> Locate:
    place = None
    if match := _STDIN.fullmatch(line):
        accepted = answer.get("accepted") if isinstance(answer, dict) else None
        place = Place((REQUESTS, "stdin", match[1]), accepted=accepted)
    elif match := _APPEND.fullmatch(line):
        place = Place((REQUESTS, "append", *parse_qs(match[1]).get("path", ())))
    return lambda way: Found(None, None if way else place)


def _from_agent(line: str, asked: Any, answer: Any, tail: int) -> Locate:
    asked = asked if isinstance(asked, dict) else {}
    name = answer.get("id") if isinstance(answer, dict) else None
    if _READ.fullmatch(line):
        place = Place((ANSWERS, "read", str(asked.get("path"))), asked.get("offset", 0), tail=tail)
        return lambda way: Found(None, None if way else place)
    if not isinstance(name, str) or not _PROCESS.fullmatch(line):
        return lambda _: Found()

    def locate(way: Way) -> Found:
        stream = way[0]
        if stream not in _STREAMS or way[1:] not in ((), ("base64",)):
            return Found()
        offset = asked.get(str(stream))
        at = offset if isinstance(offset, int) else None
        codec = BASE64 if way[1:] else TEXT
        return Found(codec, Place((ANSWERS, "process", name, stream), at))

    return locate


def _frames(number: int) -> Locate:
    """Frames of a terminal, whose data is base64."""

    def locate(way: Way) -> Found:
        if len(way) != 3 or way[2] != "data" or way[1] not in ("sent", "received"):
            return Found()
        kind = ANSWERS if way[1] == "received" else REQUESTS
        return Found(BASE64, Place((kind, "frames", number)))

    return locate
