"""The whole path with the docker engine, on a daemon of the tests' own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest

from tests.emulator.engines import dockerd

from .cloud import until
from .conftest import Run
from .leftovers import alive, emulators

pytestmark = pytest.mark.skipif(dockerd.missing() is not None, reason=str(dockerd.missing()))

OPTIONS = ("--fly-engine=docker", f"--fly-image={dockerd.IMAGE}")
MARK = f"8{os.getpid():07d}"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with dockerd.daemon(tmp_path_factory.mktemp("dockerd")) as url:
        yield url


@pytest.fixture(autouse=True)
def scratch(
    daemon: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A directory for temporary files of its own, so that leftovers can be seen."""
    path = tmp_path_factory.mktemp("scratch")
    monkeypatch.setenv("DOCKER_HOST", daemon)
    monkeypatch.setenv("TMPDIR", str(path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return path


@pytest.fixture
def left(daemon: str, scratch: Path) -> Iterator[Callable[[], list[str]]]:
    """Containers, processes and directories that runs of this test have left."""
    with contextlib.closing(docker.DockerClient(daemon)) as client:

        def look() -> list[str]:
            containers = [str(c.name) for c in client.containers.list(all=True)]
            networks = [str(n.name) for n in client.networks.list(filters={"driver": "bridge"})]
            return containers + networks + alive(MARK) + alive(str(scratch)) + emulators(scratch)

        yield look


def test_the_image_is_the_machine(
    pytester: pytest.Pytester, run: Run, left: Callable[[], list[str]]
) -> None:
    pytester.makepyfile(
        """
        import socket

        def test_it(fly_sandbox):
            assert fly_sandbox.exec("readlink /bin/sh").stdout == "busybox\\n"
            assert not fly_sandbox.exists("/usr/bin")
            assert fly_sandbox.exec("cat /etc/hostname").stdout.strip() != socket.gethostname()
            data = bytes(range(256)) * 100
            fly_sandbox.write_file("a/b", data)
            assert fly_sandbox.read_file("a/b") == data
        """
    )
    result = run(*OPTIONS)
    result.assert_outcomes(passed=1, warnings=1)
    result.stdout.fnmatch_lines(
        ["fly sandbox: local *, engine docker*", "*the image has no python3*through the Machines*"]
    )
    assert until(lambda: not left()), left()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (
            ["--fly-image=127.0.0.1:9/no/such:1"],
            "*failed to get manifest 127.0.0.1:9/no/such:1*refused*",
        ),
        (["--fly-repo=project", "--fly-agent=off"], "*git is not in the image*"),
    ],
    ids=["no such image", "no git in the image"],
)
def test_an_image_that_will_not_do_is_an_error_that_says_why(
    pytester: pytest.Pytester,
    run: Run,
    repository: Path,
    left: Callable[[], list[str]],
    args: list[str],
    said: str,
) -> None:
    pytester.makepyfile("def test_it(fly_sandbox): pass")
    result = run(*OPTIONS, *args)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([said])
    assert until(lambda: not left()), left()


def test_kill_9_in_the_middle_of_a_test_leaves_nothing(
    pytester: pytest.Pytester,
    background: Callable[..., subprocess.Popen[str]],
    left: Callable[[], list[str]],
) -> None:
    pytester.makepyfile(
        f"""
        import pathlib

        def test_it(fly_sandbox):
            fly_sandbox.exec("sleep {MARK}4 & setsid sleep {MARK}5 & true")
            pathlib.Path("ready").touch()
            fly_sandbox.exec("sleep {MARK}3", timeout=600)
        """
    )
    process = background("--fly-mode=local", "--fly-agent=off", *OPTIONS)
    assert until((pytester.path / "ready").exists, 120), process.communicate(timeout=5)
    assert alive(f"sleep {MARK}4")
    os.kill(process.pid, signal.SIGKILL)
    assert until(lambda: not left()), left()
