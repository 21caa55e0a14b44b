"""Terminals of a cook-agent that is not ours, over its WebSocket."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from pytest_flymachines.errors import AgentUnavailable, CommandTimeout
from pytest_flymachines.sandbox import Sandbox

from .conftest import WAYS
from .support import wait_until
from .world import SPEC, World

pytestmark = pytest.mark.core

# It speaks the protocol, asks for no token, and knows nothing of ours that stands beside it.
FOREIGN = """#!/bin/sh
exec python3 -I "${PYTEST_FLYMACHINES_ROOT:-}/opt/pytest-flymachines/agent.pyz" "$@" \\
    --state "${PYTEST_FLYMACHINES_ROOT:-}/tmp/foreign"
"""


@pytest.fixture(scope="module")
def machine_with_cook(world: World) -> str:
    """A machine that has a cook-agent on port 7422, and ours on another port."""
    name = f"cook-{secrets.token_hex(4)}"  # pytest may ask for one more after another engine
    return world.machine(SPEC, name, {"cook-agent": FOREIGN, "expect-foreign": "1\n"})


@pytest.fixture(scope="module", params=WAYS)
def cook(request: pytest.FixtureRequest, world: World, machine_with_cook: str) -> Iterator[Sandbox]:
    """Its handle; the foreign agent's log shows when it is up."""
    sandbox = world.sandbox(request.param, machine_with_cook, SPEC)
    wait_until(lambda: sandbox.logs().count("listening on") >= 2)
    yield sandbox
    sandbox.close_forwards()


def test_a_conversation(cook: Sandbox) -> None:
    with cook.cook_terminal() as terminal:
        terminal.send_line("echo $((20 + 3))")
        terminal.expect("23\r\n")
        terminal.send_line("exit 3")
        assert terminal.wait() == 3


def test_size_directory_and_variables(cook: Sandbox) -> None:
    cook.mkdir("a b", exist_ok=True)
    script = 'stty size; pwd; echo "$X-$TERM"; cat'
    with cook.cook_terminal(script, rows=11, cols=99, cwd="a b", env={"X": "y z"}) as terminal:
        terminal.expect(f"11 99\r\n{cook.workdir}/a b\r\ny z-xterm-256color\r\n")
        terminal.resize(20, 70)
        terminal.send_key("ctrl-d")
        assert terminal.wait() == 0


def test_an_argv(cook: Sandbox) -> None:
    with cook.cook_terminal(["printf", "%s|", "a b", "$X", ""]) as terminal:
        assert terminal.wait() == 0
        assert terminal.output == "a b|$X||"


def test_the_screen(cook: Sandbox) -> None:
    with cook.cook_terminal(r"printf '\033[2J\033[3;5Hhere'; cat", rows=6, cols=20) as terminal:
        terminal.expect_screen("^    here$")
        assert terminal.screen.cursor == (2, 8)


def test_sessions_have_names_of_their_own(cook: Sandbox) -> None:
    with cook.cook_terminal("echo one; cat") as one, cook.cook_terminal("echo two; cat") as two:
        one.expect("one")
        two.expect("two")


def test_with_ends_the_program(cook: Sandbox) -> None:
    with cook.cook_terminal("echo pid $$ .; sleep 600") as terminal:
        pid = terminal.expect(r"pid (\d+) ")[1]
        with pytest.raises(CommandTimeout):
            terminal.wait(0.2)
    wait_until(lambda: not cook.exec(f"kill -0 {pid}", check=False).ok)


def test_typing_after_the_end_is_a_broken_pipe(cook: Sandbox) -> None:
    with cook.cook_terminal("true") as terminal:
        terminal.wait()
        with pytest.raises(BrokenPipeError):
            terminal.send_line("x")


def test_where_there_is_none_it_says_what_to_do(sandbox: Sandbox) -> None:
    with pytest.raises(AgentUnavailable, match=r"port 7422 .*--fly-agent=PATH.*terminal\(\)"):
        sandbox.cook_terminal()
