"""Every example of the handle's page, run over every way."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import urllib.request
from pathlib import Path

import pytest

from pytest_flymachines.sandbox import (
    ExecResult,
    FileInfo,
    Forward,
    ProcessInput,
    RemoteProcess,
    Sandbox,
    SandboxPath,
    Screen,
    Status,
    Terminal,
)

pytestmark = pytest.mark.core

PAGE = Path(__file__).parents[2] / "docs/handle.md"
BLOCK = re.compile(r"^```python( as root)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def examples() -> list[tuple[int, str, bool]]:
    """Line and text of each code block, and whether it needs root in the machine."""
    text = PAGE.read_text()
    blocks = BLOCK.finditer(text)
    return [(text.count("\n", 0, m.start(2)) + 1, m[2], bool(m[1])) for m in blocks]


PUBLIC = (
    ExecResult,
    FileInfo,
    Forward,
    ProcessInput,
    RemoteProcess,
    Sandbox,
    SandboxPath,
    Screen,
    Status,
    Terminal,
)
PLUMBING = {"attach", "close_forwards"}
"""What the plugin uses, not its users."""


def public_verbs() -> list[str]:
    """Names of ours that an editor completes, at the handle and at what it gives."""
    found = {
        f"{kind.__name__}.{name}"
        for kind in PUBLIC
        for base in kind.__mro__
        if base.__module__.startswith("pytest_flymachines")
        for name in (*vars(base), *getattr(base, "__annotations__", {}))
        if not name.startswith("_") and name not in PLUMBING
    }
    return sorted(found)


@pytest.mark.parametrize(
    ("line", "code", "root"), [pytest.param(*e, id=f"line-{e[0]}") for e in examples()]
)
def test_example(
    sandbox: Sandbox,
    local: Path,
    line: int,
    code: str,
    root: bool,
    request: pytest.FixtureRequest,
) -> None:
    if root:
        request.getfixturevalue("as_root")
    names = {
        "sandbox": sandbox,
        "local": local,
        "signal": signal,
        "socket": socket,
        "subprocess": subprocess,
        "urllib": urllib,
    }
    # the padding makes line numbers of a traceback those of the page
    exec(compile("\n" * (line - 1) + code, str(PAGE), "exec"), names)


@pytest.mark.parametrize("verb", public_verbs())
def test_every_verb_has_its_place_on_the_page(verb: str) -> None:
    assert re.search(rf"\b{verb.partition('.')[2]}\b", PAGE.read_text())
