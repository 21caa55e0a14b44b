"""A cook-agent that is not ours is delivered, started on its port, and ours stands beside it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from pytest_flymachines.agent.bundle import build

from .conftest import Run


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """Something that speaks cook-agent's protocol: our own, without a token, as a program."""
    path = tmp_path / "my-agent"
    path.write_bytes(b"#!/usr/bin/env -S python3 -I\n" + build())
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.mark.parametrize("engine", ["bubblewrap", "process"])
def test_the_users_agent_listens_on_7422_and_ours_runs_commands(
    pytester: pytest.Pytester, run: Run, program: Path, engine: str
) -> None:
    pytester.makepyfile(
        """
        from pytest_flymachines.agent.terminal import CookTerminal
        from pytest_flymachines.agent.websocket import TextSocket, open_websocket
        from pytest_flymachines._clock import SystemClock

        def test_it(fly_sandbox):
            running = fly_sandbox.exec("ps axww -o args").stdout
            assert "cook-agent -listen" in running
            assert fly_sandbox.exec("echo ours").stdout == "ours\\n"
            with fly_sandbox.forward(7422) as forward:
                socket = TextSocket(open_websocket(f"http://127.0.0.1:{forward.port}", "/", {}))
                terminal = CookTerminal(socket, "mine", SystemClock())
                terminal.create("echo theirs; sleep 5")
                seen = b""
                while b"theirs" not in seen:
                    seen += terminal.read(10)
                terminal.close()
        """
    )
    run(f"--fly-agent={program}", f"--fly-engine={engine}").assert_outcomes(passed=1)


def test_an_agent_that_cannot_run_shows_its_log(
    pytester: pytest.Pytester, run: Run, tmp_path: Path
) -> None:
    program = tmp_path / "broken-agent"
    program.write_text("#!/bin/sh\necho this is why >&2\nexit 3\n")
    pytester.makepyfile("def test_it(fly_sandbox): pass")
    result = run(f"--fly-agent={program}")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*did not listen on port 7422*", "*this is why*"])


def test_an_agent_that_is_not_there_is_named(pytester: pytest.Pytester, run: Run) -> None:
    pytester.makepyfile("def test_it(fly_sandbox): pass")
    result = run("--fly-agent=/nowhere/cook-agent")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*agent='/nowhere/cook-agent': no such file*"])
