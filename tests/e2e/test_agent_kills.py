"""A run that is killed at a request to the agent leaves nothing after the time to live.

As the kill matrix does for requests to the Machines API: every kind of request that the agent
answers, one moment of each, in turns; all three moments of the command that fills the workspace.
"""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

from pytest_flymachines.agent.server.app import App

from .cloud import Cloud, Project, until
from .forks import Forks, alive, forks
from .gate import MOMENTS, Stop, gate

TTL_S = 10
EXEC = "POST exec"
#: Makes every kind of request.
TESTS = """
def test_it(fly_workspace, tmp_path):
    box = fly_workspace
    channel = box.attachment.channel
    channel.health(), channel.log()
    box.write_file("file", "text")
    box.append_file("file", "more")
    assert box.read_text("file") == "textmore"
    box.path("file").chmod(0o600)
    box.path("link").symlink_to("file")
    box.path("new").touch()
    box.rename("new", "old")
    box.mkdir("dir")
    box.stat("file"), box.list_files(), box.glob("**/*")
    box.remove("old")
    box.checkpoint("one")
    assert "one" in box.checkpoints()
    box.restore("one")
    box.delete_checkpoint("one")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").touch()
    box.upload(tmp_path / "tree", "there")
    box.download("there", tmp_path / "back")
    with box.terminal() as terminal:
        terminal.resize(10, 20)
        terminal.send_line("exit")
        terminal.wait()
    with box.popen(["sleep", "100"]) as process:
        process.terminate()
        process.wait()
"""


def routes() -> dict[str, tuple[str, ...]]:
    """What the agent answers, beside exec."""
    parts: dict[str, Any] = dict.fromkeys(("exec_api", "files", "trees", "workspaces"), Mock())
    known = App(base=b"", token_sha256=None, **parts)._routes
    return {" ".join([route[0], "/".join(route[1:])]): route for route in known}


def kind_of(method: str, path: str) -> str:
    """`POST exec`, `DELETE workspaces/*`."""
    called = path.partition("?")[0].split("/")[6:]
    wanted = [method, *called[1:]]
    for kind, route in routes().items():
        pairs = zip(route, wanted, strict=False)
        if len(route) == len(wanted) and all(a in ("*", b) for a, b in pairs):
            return kind
    return f"{method} {'/'.join(called)}"


def stops() -> list[Stop]:
    first = [Stop(EXEC, moment) for moment in MOMENTS]
    return [*first, *(Stop(kind, MOMENTS[n % 3]) for n, kind in enumerate(sorted(routes())))]


def play(fly: Cloud, from_: Forks, path: Path, stop: Stop) -> str:
    """A run that is killed there; what is wrong with that, or nothing."""
    project = Project(path / f"{stop}".replace("/", "_"), TESTS)
    started = threading.Event()
    group: list[int] = []

    def kill(_: Stop) -> bool:
        started.wait()
        os.killpg(group[0], signal.SIGKILL)
        return False

    with gate(fly.emulator.proxy_url, [stop], kill, kind_of) as passage:
        there = project.environment({**fly.environment, "FLY_EMULATOR_PROXY_URL": passage.url})
        arguments = project.arguments("-q", f"--fly-ttl={TTL_S}")
        group.append(from_.start(arguments, project.path, there))
        started.set()
        ended = until(lambda: not alive(group[0]), 120)
        if not ended:
            os.killpg(group[0], signal.SIGKILL)
    if passage.done and ended:
        return ""
    return f"{stop}: reached: {passage.done}\n{(project.path / 'output').read_text()}"


def test_a_kill_at_any_request_to_the_agent_leaves_nothing(fly: Cloud, tmp_path: Path) -> None:
    with forks() as from_, ThreadPoolExecutor(6) as pool:
        wrong = list(filter(None, pool.map(partial(play, fly, from_, tmp_path), stops())))
    assert not wrong, "\n".join(wrong)
    assert fly.count("POST machines") == len(stops())
    assert until(lambda: not fly.machines(), 10 * TTL_S)
