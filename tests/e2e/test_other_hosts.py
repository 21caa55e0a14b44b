"""Workers on other computers: the machine's name, unique in its app, is the lock they share.

Another computer is execnet's own socket server in namespaces: with another host name, user,
home and temporary directory, and without a view of the controller's files.
"""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_flymachines.emulator.engines.bwrap import find_bwrap

from .cloud import Cloud, Ended, Project, end

TESTS = """
import os, pathlib, socket, time, pytest

@pytest.mark.parametrize("number", range(3))
def test_it(fly_sandbox, number):
    print("<" + socket.gethostname() + ">")
    fly_sandbox.exec("touch $(hostname).seen; sleep {seconds}")
"""


@dataclass(frozen=True)
class Host:
    """Another computer.

    Attributes:
        spec: For `--tx`.
        home: Its home directory, which can be seen here; its TMPDIR is below.
    """

    spec: str
    home: Path


SERVER = """
import socket, sys
from execnet.gateway_base import get_execmodel
from execnet.script import socketserver

socketserver.execmodel = get_execmodel("thread")
socketserver.startserver(socket.socket(fileno=int(sys.argv[1])), loop=True)
"""


@contextmanager
def host(name: str, home: Path, *hidden: Path, network: bool = True) -> Iterator[Host]:
    """A computer that sees none of the directories `hidden`.

    Without `network` it reaches nothing, though the controller reaches it.
    """
    (home / "tmp").mkdir(parents=True)
    boxed = ["--dev-bind", "/", "/", "--unshare-user", "--uid", "4242", "--unshare-pid"]
    boxed += ["--unshare-uts", "--hostname", name, "--proc", "/proc", "--die-with-parent"]
    for path in hidden:
        boxed += ["--tmpfs", str(path)]
    boxed += [] if network else ["--unshare-net"]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = [sys.executable, "-c", SERVER, str(listener.fileno())]
        process = subprocess.Popen(
            [str(find_bwrap()), *boxed, "--chdir", str(home), *server],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(home),
                "TMPDIR": str(home / "tmp"),
                "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            },
            stdout=subprocess.DEVNULL,
            pass_fds=[listener.fileno()],
        )
        port = listener.getsockname()[1]
    try:
        yield Host(f"socket=127.0.0.1:{port}", home)
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Callable[[str], Host]]:
    """`elsewhere(name)`: a computer that does not see the project."""
    (tmp_path / "project").mkdir()
    with ExitStack() as stack:
        yield lambda name: stack.enter_context(host(name, tmp_path / name, tmp_path / "project"))


def distributed(
    fly: Cloud | None, project: Project, specs: list[str], *args: str, mode: str = "live"
) -> Ended:
    """A run whose every test runs on every one of these workers."""
    path = str(project.path)
    tx = [f"--tx={spec}" for spec in specs]
    plain = ["--dist=each", f"--rsyncdir={path}", "-W", "ignore::DeprecationWarning", "-rP"]
    # what is in the project's own directory, xdist copies
    scratch = project.path.parent / "t"
    scratch.mkdir()
    env = {"TMPDIR": str(scratch), **(fly.environment if fly else {})}
    return end(project.start(*plain, *tx, *args, path, env=env, mode=mode))


def made(fly: Cloud) -> int:
    """Creates that were not refused for their name."""
    return sum(r.kind == "POST machines" and r.status == 200 for r in fly.requests())


def test_hosts_share_one_machine(
    fly: Cloud, tmp_path: Path, elsewhere: Callable[[str], Host]
) -> None:
    """They know of the token what their controller told them, and nothing of theirs is left."""
    project = Project(tmp_path / "project", TESTS.format(seconds=0))
    hosts = [elsewhere("alpha"), elsewhere("beta")]
    ended = distributed(fly, project, ["popen", *(one.spec for one in hosts)])
    ended.has("9 passed", "<alpha>", "<beta>", "1 machine(s)", "about $")
    assert made(fly) == 1
    assert fly.count("DELETE machines/ID") == 1
    for one in hosts:
        assert list(one.home.glob("tmp/**/fly-*")) == []


def test_a_machine_of_another_host_is_renewed(
    fly: Cloud, tmp_path: Path, elsewhere: Callable[[str], Host]
) -> None:
    project = Project(tmp_path / "project", TESTS.format(seconds=4))
    ended = distributed(fly, project, [elsewhere("alpha").spec], "--fly-ttl=10")
    ended.has("3 passed", "1 machine(s)")


def test_a_worker_that_cannot_reach_the_emulator_says_what_to_do(tmp_path: Path) -> None:
    """It listens on the loopback of the controller's computer alone."""
    project = Project(tmp_path / "project", TESTS.format(seconds=0))
    with host("alpha", tmp_path / "alpha", project.path, network=False) as alone:
        ended = distributed(None, project, [alone.spec], mode="local")
    ended.has("3 errors", "this worker, on alpha, cannot reach the emulator", "--fly-mode=live")


def test_workers_in_other_directories_share_by_the_lock(fly: Cloud, tmp_path: Path) -> None:
    """xdist copies the project for them, but they are on this computer."""
    project = Project(tmp_path / "project", TESTS.format(seconds=0))
    python = shlex.quote(sys.executable)
    specs = [f"popen//python={python}//chdir={tmp_path / name}" for name in "ab"]
    distributed(fly, project, specs).has("6 passed", "1 machine(s)")
    assert fly.count("POST machines") == 1
