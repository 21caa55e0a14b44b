"""The client for a cook-agent that is not ours, against one that speaks as it does."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_flymachines._clock import SystemClock
from pytest_flymachines.agent.terminal import CookTerminal
from pytest_flymachines.agent.websocket import TextSocket, open_websocket
from pytest_flymachines.errors import AgentUnavailable, FlyMachinesError
from tests.agent.running import RunningAgent, running_agent


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAgent]:
    """An agent without authentication, as cook-agent has none."""
    with running_agent(tmp_path_factory.mktemp("agent"), token=None) as running:
        yield running


def connect(agent: RunningAgent, session: str) -> CookTerminal:
    frames = TextSocket(open_websocket(f"127.0.0.1:{agent.port}", "/", {}))
    return CookTerminal(frames, session, SystemClock())


@pytest.fixture
def terminal(agent: RunningAgent, request: pytest.FixtureRequest) -> Iterator[CookTerminal]:
    opened = connect(agent, request.node.name)
    yield opened
    opened.close()


def read_until(terminal: CookTerminal, wanted: bytes) -> bytes:
    output = b""
    while wanted not in output:
        output += terminal.read(20)
        assert output or not terminal.ended
    return output


def read_all(terminal: CookTerminal) -> bytes:
    output = b""
    while not terminal.ended:
        output += terminal.read(20)
    return output + terminal.read(0)


def test_a_command_is_typed_into_and_its_exit_code_is_known(terminal: CookTerminal) -> None:
    terminal.create("stty -echo; echo ready; read line; echo got $line; exit 3")
    read_until(terminal, b"ready\r\n")
    terminal.write(b"some words\n")
    assert read_all(terminal) == b"got some words\r\n"
    assert terminal.exit_code == 3
    assert not terminal.running()


def test_output_without_a_final_newline_is_whole(terminal: CookTerminal) -> None:
    terminal.create("printf 'no newline \\036 here'")
    assert read_all(terminal) == b"no newline \x1e here"
    assert terminal.exit_code == 0


def test_a_command_may_end_in_a_comment_or_here_document(terminal: CookTerminal) -> None:
    terminal.create("cat <<END\nhere\nEND\nfalse # comment")
    assert read_all(terminal) == b"here\r\n"
    assert terminal.exit_code == 1


def test_a_shell_that_is_killed_has_ended_without_exit_code(
    terminal: CookTerminal, agent: RunningAgent
) -> None:
    terminal.create("echo ready; exec sleep 300")
    read_until(terminal, b"ready")
    for pid in agent.children():
        os.killpg(pid, signal.SIGKILL)
    while not terminal.ended:
        terminal.read(0.05)
    assert terminal.exit_code is None


def test_size_workdir_and_resize(terminal: CookTerminal, tmp_path: Path) -> None:
    command = "trap 'stty size; exit' WINCH; stty size; pwd; while sleep 0.05; do :; done"
    terminal.create(command, workdir=str(tmp_path), rows=30, cols=90)
    output = read_until(terminal, os.fsencode(tmp_path.name))
    assert output.startswith(b"30 90\r\n")
    terminal.resize(40, 120)
    assert b"40 120" in read_all(terminal)


def test_a_session_is_left_and_joined(agent: RunningAgent) -> None:
    first = connect(agent, "joined")
    first.create("stty -echo; echo ready; read x; echo end")
    read_until(first, b"ready\r\n")
    first.detach()
    first.close()
    second = connect(agent, "joined")
    assert second.sessions() == ["joined"]
    assert second.running()
    second.attach()
    assert second.read(0.05) == b""
    second.write(b"\n")
    assert read_all(second) == b"end\r\n"
    second.close()


def test_a_refusal_has_the_agents_words(terminal: CookTerminal) -> None:
    with pytest.raises(FlyMachinesError, match=r"attach of terminal '.*words': session not found"):
        terminal.attach()
    with pytest.raises(FlyMachinesError, match="failed to start pty"):
        terminal.create("true", workdir="/no/such/directory")


def test_an_agent_that_ends_is_unavailable(tmp_path: Path) -> None:
    with running_agent(tmp_path, token=None) as agent:
        terminal = connect(agent, "lost")
        terminal.create("cat")
        agent.process.kill()
        agent.process.wait()
        with pytest.raises(AgentUnavailable, match="closed the terminal's connection"):
            read_until(terminal, b"what never comes")
        with pytest.raises(AgentUnavailable, match="closed the terminal's connection"):
            terminal.write(b"x")
        terminal.close()


def test_no_websocket_says_what_came_back(tmp_path: Path) -> None:
    with pytest.raises(AgentUnavailable, match=r"no connection to http://127\.0\.0\.1:1 "):
        open_websocket("http://127.0.0.1:1", "/", {})
    with running_agent(tmp_path, token="secret") as agent:
        with pytest.raises(AgentUnavailable, match=r"401.*bearer token"):
            open_websocket(agent.url, "/", {})
        headers = {"authorization": "Bearer secret"}
        open_websocket(agent.url, "/", headers).sock.close()
