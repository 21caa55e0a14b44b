"""Whatever no method can take is refused before any request: by its name, with what is accepted."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from pytest_flymachines._clock import SystemClock
from pytest_flymachines._http import Request, Response, Transport
from pytest_flymachines.agent.channel import AgentChannel
from pytest_flymachines.api import MachinesClient
from pytest_flymachines.sandbox import Attachment, RemoteProcess, Sandbox, Terminal
from pytest_flymachines.sandbox.api_channel import ApiChannel
from pytest_flymachines.sandbox.channel import ProcessUpdate
from pytest_flymachines.spec import SandboxSpec

from .test_docstrings import METHODS

LONE = "\ud800"  # stands for no byte
TYPES: tuple[Any, ...] = (None, 3.5, [], {})
SECONDS = ("5", True, -1, math.nan, math.inf)
PATHS = (*TYPES, 3, True, "", "a\0b", LONE)
COMMANDS: tuple[Any, ...] = (None, 3, b"true", {}, [], "", "a\0b", ["a", "b\0"], ["a", None], LONE)
ENVS = (3, "A=1", ["A"], {"A": 1}, {1: "a"}, {"": "a"}, {"A=B": "a"}, {"A": "\0"}, {"A": LONE})
PATTERNS = (None, 3, b"a", re.compile(b"a"), "(", "*a")
NAMES = (None, 3, b"a", "", "../a", "-a", "a b", "a" * 101, "a\n")
MODES = ("755", True, 1.5, -1, 0o10000)
SIZES = ("24", True, 1.5, None, 0, -1, 1001, 10**6)
DATA: tuple[Any, ...] = (None, 3, 1.5, [1, 2], Path("a"), {}, LONE)

WRONG: dict[str, tuple[Any, ...]] = {
    "checkpoint": NAMES,
    "cols": SIZES,
    "command": COMMANDS,
    "cwd": PATHS[1:],
    "data": DATA,
    "encoding": (None, 3, b"utf-8", "nosuch", "base64", ""),
    "env": ENVS,
    "errors": (None, 3, "nosuch", ""),
    "exclude": (None, 3, "*.pyc", b"*", [1], [b"a"]),
    "grace": (*SECONDS, None),
    "keys": (None, 3, b"a", "", "nosuch", "ctrl-", "ctrl-1"),
    "local": (None, 3, b"a", "", "a\0b"),
    "mode": MODES,
    "name": NAMES,
    "number": ("TERM", 1.5, True, -1, 65),
    "offset": ("1", True, 1.5, None, -1),
    "on_output": (3, "print"),
    "path": PATHS,
    "pattern": PATTERNS,
    "port": ("80", True, 80.0, None, 0, -1, 65536, 70000),
    "progress": (3, "print"),
    "remote": PATHS,
    "rows": SIZES,
    "seconds": (*SECONDS, None, 0),
    "size": ("1", True, 1.5, -1),
    "source": PATHS,
    "stdin": DATA[1:],
    "target": PATHS,
    "text": (None, 3, LONE),
    "timeout": SECONDS,
    "user": (True, 1.5, [], "", "a\0b", "a:b", -1, LONE),
}
# where a name means something else than elsewhere
ELSEWHERE = {
    "Sandbox.glob.pattern": PATHS,
    "SandboxPath.glob.pattern": (None, 3, "", "/a", "a\0b"),
    "SandboxPath.rglob.pattern": (None, 3, "", "/a", "a\0b"),
    "SandboxPath.write_text.data": (None, 3, b"a"),
}
FINE: dict[str, Any] = {
    "checkpoint": "c",
    "command": "true",
    "data": "",
    "local": "/nowhere",
    "mode": 0o644,
    "name": "c",
    "number": 15,
    "path": "a",
    "pattern": "a",
    "port": 80,
    "remote": "a",
    "rows": 24,
    "cols": 80,
    "seconds": 1,
    "source": "a",
    "target": "b",
}
# true or false as Python has it, or not for users
ANYTHING = {"attachment", "check", "exist_ok", "follow_symlinks", "missing_ok", "parents"}
ANYTHING |= {"recursive"}


class Forbidden(Transport):
    def handle_request(self, request: Request) -> Response:
        raise AssertionError(f"asked for {request.method} {request.url.path}")


@cache
def sandbox(way: str) -> Sandbox:
    """A handle whose machine nobody may ask."""
    clock = SystemClock()
    client = MachinesClient("token", transport=Forbidden())
    channel = (
        ApiChannel(client, "app", "m1", clock)
        if way == "api"
        else AgentChannel(
            Forbidden(),
            base_url="http://127.0.0.1:1",
            app="app",
            machine_id="m1",
            token=None,
            clock=clock,
        )
    )
    return Sandbox(
        Attachment(
            client=client,
            channel=channel,
            clock=clock,
            app="app",
            machine_id="m1",
            region="ord",
            spec=SandboxSpec(),
            workdir="/workspace",
        )
    )


def bound(way: str, method: str) -> Any:
    """A method of something that has no machine."""
    handle = sandbox(way)
    channel, update = handle.attachment.channel, ProcessUpdate(id="p1", running=True, pid=1)
    kind, _, name = method.partition(".")
    process = RemoteProcess(channel, SystemClock(), update, "true", "m1")
    whose: dict[str, Any] = {
        "Sandbox": handle,
        "SandboxPath": handle.path("a"),
        "RemoteProcess": process,
        "ProcessInput": process.stdin,
        "Terminal": Terminal(channel, SystemClock(), update, "true", "m1", (24, 80)),
    }
    return getattr(whose[kind], name)


def call(method: Any, wrong: str, value: Any) -> None:
    """Call with one wrong argument, and do what the caller would do with the result."""
    parameters = inspect.signature(method).parameters
    given = {
        name: FINE[name]
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty and name in FINE
    }
    if parameters[wrong].kind is inspect.Parameter.VAR_POSITIONAL:
        method(value)
        return
    result = method(**given | {wrong: value})
    if isinstance(result, AbstractContextManager):
        result.__enter__()
    elif isinstance(result, Iterator):
        next(result, None)


def cases() -> Iterator[tuple[str, str]]:
    for name, method in METHODS.items():
        assert callable(method)
        for argument in inspect.signature(method).parameters:
            if argument != "self" and argument not in ANYTHING:
                yield name, argument


@pytest.mark.parametrize("way", ["agent", "api"])
@pytest.mark.parametrize(("name", "argument"), list(cases()))
def test_what_cannot_be_is_refused_before_any_request(way: str, name: str, argument: str) -> None:
    method = bound(way, name)
    for value in ELSEWHERE.get(f"{name}.{argument}", WRONG[argument]):
        with pytest.raises((TypeError, ValueError, LookupError)) as caught:
            call(method, argument, value)
        parts = [value, *value] if isinstance(value, list | dict) else [value]
        shown = [repr(p) for p in parts] + [repr(v) for v in getattr(value, "values", list)()]
        assert any(text in str(caught.value) for text in shown), (value, caught.value)
        assert not isinstance(caught.value, UnicodeError)


@pytest.mark.parametrize("way", ["agent", "api"])
def test_a_piece_that_is_none_ends_a_write_that_makes_its_pieces_on_the_way(way: str) -> None:
    for pieces in (iter([b"a", 1]), {1}, {"a"}, ["a"]):
        with pytest.raises(TypeError, match=r"data has .* for a piece"):
            sandbox(way).write_file("a", pieces)  # type: ignore[arg-type]
