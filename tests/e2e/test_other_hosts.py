"""Workers on other computers: the machine's name, unique in its app, is the lock they share.

Another computer is execnet's own socket server in namespaces: with another host name, user,
home and temporary directory, and without a view of the controller's files.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_flymachines.emulator.engines.bwrap import find_bwrap

from .cloud import Cloud, Ended, Project, cloud, end

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


@contextmanager
def host(name: str, home: Path, *hidden: Path) -> Iterator[Host]:
    """A computer that sees none of the directories `hidden`."""
    (home / "tmp").mkdir(parents=True)
    boxed = ["--dev-bind", "/", "/", "--unshare-user", "--uid", "4242", "--unshare-pid"]
    boxed += ["--unshare-uts", "--hostname", name, "--proc", "/proc", "--die-with-parent"]
    for path in hidden:
        boxed += ["--tmpfs", str(path)]
    server = [sys.executable, "-u", "-m", "execnet.script.socketserver", "127.0.0.1:0"]
    process = subprocess.Popen(
        [str(find_bwrap()), *boxed, "--chdir", str(home), *server],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "TMPDIR": str(home / "tmp"),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        },
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        port = process.stdout.readline().rpartition(",")[2].strip(" )\n")
        yield Host(f"socket=127.0.0.1:{port}", home)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def fly(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    for name in list(os.environ):
        if name.startswith(("FLY_", "PYTEST_")):
            monkeypatch.delenv(name)
    with cloud() as found:
        yield found
        assert found.machines() == []


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Callable[[str], Host]]:
    """`elsewhere(name)`: a computer that does not see the project."""
    (tmp_path / "project").mkdir()
    with ExitStack() as stack:
        yield lambda name: stack.enter_context(host(name, tmp_path / name, tmp_path / "project"))


def distributed(fly: Cloud, project: Project, specs: list[str], *args: str) -> Ended:
    """A run whose every test runs on every one of these workers."""
    path = str(project.path)
    tx = [f"--tx={spec}" for spec in specs]
    plain = ["--dist=each", f"--rsyncdir={path}", "-W", "ignore::DeprecationWarning", "-rP"]
    return end(project.start(*plain, *tx, *args, path, env=fly.environment))


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


def test_workers_in_other_directories_share_by_the_lock(fly: Cloud, tmp_path: Path) -> None:
    """xdist copies the project for them, but they are on this computer."""
    project = Project(tmp_path / "project", TESTS.format(seconds=0))
    specs = [f"popen//python={sys.executable}//chdir={tmp_path / name}" for name in "ab"]
    distributed(fly, project, specs).has("6 passed", "1 machine(s)")
    assert fly.count("POST machines") == 1
