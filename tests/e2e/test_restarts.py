"""Runs that start over, and tests that run in children of a worker: no machine is left by them."""

from __future__ import annotations

import os
import signal
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from .cloud import Cloud, Project, cloud, end, until
from .test_sharing import MANY

#: What pytest-forked does, of which no release works with the pytest of today.
FORKED = """
import os, pickle, pytest
from _pytest.runner import runtestprotocol

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        reports = runtestprotocol(item, log=False, nextitem=None)
        os.write(writing, pickle.dumps([report._to_json() for report in reports]))
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        data = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    reports = [pytest.TestReport._from_json(each) for each in pickle.loads(data)] if data else [
        pytest.TestReport(item.nodeid, item.location, {}, "failed", f"ended {status}", "call")
    ]
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    return True
"""
KILLS_ITSELF = """
import os, pytest

@pytest.mark.parametrize("number", range(6))
def test_it(fly_sandbox, number):
    assert fly_sandbox.exec("echo hi").stdout == "hi\\n"
    if number == 2:
        os.kill(os.getpid(), 9)
"""


@pytest.fixture(scope="module")
def running() -> Iterator[Cloud]:
    with cloud() as found:
        yield found


@pytest.fixture
def fly(running: Cloud) -> Iterator[Cloud]:
    """Without requests so far; afterwards there is nothing of ours."""
    running.forget_requests()
    yield running
    assert running.machines() == []


@pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["alone", "workers"])
def test_each_test_in_a_child_of_its_own(fly: Cloud, tmp_path: Path, workers: list[str]) -> None:
    """Every child attaches to the machine that the first one launched, also after a kill -9."""
    ended = Project(tmp_path, KILLS_ITSELF, FORKED).run(*workers, env=fly.environment)
    ended.has("5 passed", "1 failed", "ended -9", "1 machine(s)")
    assert (fly.count("POST machines"), fly.count("DELETE machines/ID")) == (1, 1)


def test_a_test_that_forks_uses_the_machine_in_the_child(fly: Cloud, tmp_path: Path) -> None:
    tests = textwrap.dedent(
        """
        import os, warnings

        def test_it(fly_sandbox):
            fly_sandbox.exec("true")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                child = os.fork()
            if child == 0:
                os._exit(0 if fly_sandbox.exec("echo hi").stdout == "hi\\n" else 1)
            assert os.waitpid(child, 0)[1] == 0
            assert fly_sandbox.exec("echo ho").stdout == "ho\\n"
        """
    )
    Project(tmp_path, tests).run(env=fly.environment).has("1 passed")
    assert (fly.count("POST machines"), fly.count("DELETE machines/ID")) == (1, 1)


def test_looponfail_ends_the_machine_of_each_round(fly: Cloud, tmp_path: Path) -> None:
    """xdist's own: it runs pytest anew in a subprocess after each change, until Ctrl-C."""
    project = Project(
        tmp_path / "project", KILLS_ITSELF.replace("os.kill(os.getpid(), 9)", "1 / 0")
    )
    output = tmp_path / "output"
    with output.open("wb") as file:
        plugins = ["xdist", "xdist.looponfail"]
        command = project.command("-f", "-W", "ignore::DeprecationWarning", plugins=plugins)
        loop = subprocess.Popen(
            command,
            cwd=project.path,
            env=project.environment({**fly.environment, "PYTHONUNBUFFERED": "1"}),
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        assert until(lambda: output.read_text().count("waiting for changes") == 1, 60)
        assert "1 failed, 5 passed" in output.read_text()
        assert fly.machines() == []
        (project.path / "test_it.py").write_text(MANY.format(count=6))
        assert until(lambda: "6 passed" in output.read_text(), 60), output.read_text()
    finally:
        os.killpg(loop.pid, signal.SIGINT)
        loop.wait(60)
    assert fly.count("POST machines") == fly.count("DELETE machines/ID") >= 2


def test_several_runs_in_one_process(fly: Cloud, tmp_path: Path) -> None:
    """As pytester's in-process runs do."""
    project = Project(tmp_path, MANY.format(count=1))
    (project.path / "twice.py").write_text(
        "import pytest, sys\nsys.exit(pytest.main(sys.argv[1:]) or pytest.main(sys.argv[1:]))\n"
    )
    command = project.command("test_it.py")
    process = project.popen([command[0], "twice.py", *command[3:]], fly.environment)
    assert end(process).code == 0
    assert (fly.count("POST machines"), fly.count("DELETE machines/ID")) == (2, 2)
