"""One machine for all workers: one create and one destroy, whatever becomes of the workers."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .cloud import Cloud, Ended, Project, cloud
from .forks import Forks

MANY = """
import pytest

@pytest.mark.parametrize("number", range({count}))
def test_it(fly_sandbox, number):
    assert fly_sandbox.exec("echo hi").stdout == "hi\\n"
"""
CRASH = """
import os, pathlib, pytest

@pytest.mark.parametrize("number", range(8))
def test_it(fly_sandbox, number):
    fly_sandbox.exec("true")
    if number == 3:
        if {once} and pathlib.Path("crashed").exists():
            return
        pathlib.Path("crashed").touch()
        {how}
"""


@pytest.fixture(scope="module")
def fly() -> Iterator[Cloud]:
    with cloud() as found:
        yield found


@pytest.fixture(autouse=True)
def clean(fly: Cloud) -> Iterator[None]:
    """Each test begins without requests and faults, and leaves nothing of ours behind."""
    fly.forget_requests()
    yield
    fly.clear_faults()
    assert fly.machines() == []
    assert fly.volumes() == []


Run = Callable[..., Ended]


@pytest.fixture(scope="module")
def run(fly: Cloud, runs: Forks) -> Run:
    """`run(path, tests, *args)`: a run against this emulator."""
    return lambda path, tests, *args: runs.run(Project(path, tests), *args, env=fly.environment)


def machines_made_and_destroyed(fly: Cloud) -> tuple[int, int]:
    return fly.count("POST machines"), fly.count("DELETE machines/ID")


def test_sixteen_workers_share_one_machine(fly: Cloud, run: Run, tmp_path: Path) -> None:
    ended = run(tmp_path, MANY.format(count=200), "-n", "16")
    ended.has("200 passed", "1 machine(s)", "about $")
    assert machines_made_and_destroyed(fly) == (1, 1)


def test_sixteen_workers_have_sixteen_machines_when_asked(
    fly: Cloud, run: Run, tmp_path: Path
) -> None:
    ended = run(tmp_path, MANY.format(count=200), "-n", "16", "--fly-share=worker")
    ended.has("200 passed", "16 machine(s)")
    assert machines_made_and_destroyed(fly) == (16, 16)


@pytest.mark.parametrize("kind", ["loadscope", "loadfile", "loadgroup", "worksteal", "each"])
def test_every_kind_of_distribution_shares(fly: Cloud, run: Run, tmp_path: Path, kind: str) -> None:
    ended = run(tmp_path, MANY.format(count=6), "-n", "2", f"--dist={kind}")
    assert ended.code == 0, ended.output
    assert machines_made_and_destroyed(fly) == (1, 1)


def test_without_xdist_installed(fly: Cloud, tmp_path: Path) -> None:
    hidden = tmp_path / "hidden" / "xdist"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ImportError('not installed')")
    project = Project(tmp_path / "project", MANY.format(count=2))
    without = {"PYTHONPATH": str(hidden.parent)}
    ended = project.run(plugins=(), env={**fly.environment, **without})
    ended.has("2 passed")
    assert machines_made_and_destroyed(fly) == (1, 1)


def test_different_specs_do_not_share(fly: Cloud, run: Run, tmp_path: Path) -> None:
    tests = """
    import pytest

    @pytest.mark.parametrize("memory", [256, 512, 256, 512])
    def test_it(fly_sandbox_factory, memory):
        one = fly_sandbox_factory(memory_mb=memory)
        assert one.machine_id == fly_sandbox_factory(memory_mb=memory).machine_id
    """
    ended = run(tmp_path, textwrap.dedent(tests), "-n", "2")
    ended.has("4 passed", "2 machine(s)")
    assert machines_made_and_destroyed(fly) == (2, 2)


@pytest.mark.parametrize("how", ["os._exit(1)", "os.kill(os.getpid(), 9)"], ids=["exit", "kill"])
def test_the_replacement_of_a_crashed_worker_attaches(
    fly: Cloud, run: Run, tmp_path: Path, how: str
) -> None:
    ended = run(tmp_path, CRASH.format(once=False, how=how), "-n", "2")
    ended.has("7 passed", "1 failed", "crashed while running")
    assert machines_made_and_destroyed(fly) == (1, 1)


@pytest.mark.parametrize("args", [["-x"], ["--maxfail=1", "-n", "2"]], ids=["x", "maxfail"])
def test_a_run_that_stops_early_takes_down(
    fly: Cloud, run: Run, tmp_path: Path, args: list[str]
) -> None:
    ended = run(tmp_path, CRASH.format(once=False, how="assert False"), *args)
    assert ended.code in (1, 2)
    assert machines_made_and_destroyed(fly) == (1, 1)


def test_reruns_random_order_and_time_outs_share(fly: Cloud, tmp_path: Path) -> None:
    tests = CRASH.format(once=True, how="assert False") + textwrap.dedent(
        """
        @pytest.mark.timeout(1, func_only=True)
        def test_hangs(fly_sandbox):
            fly_sandbox.exec("sleep 60")
        """
    )
    project = Project(tmp_path, tests)
    args = ["-n", "2", "--reruns=1", "--only-rerun=assert"]
    plugins = ["xdist", "randomly", "rerunfailures", "timeout"]
    ended = project.run(*args, env=fly.environment, plugins=plugins)
    ended.has("8 passed", "1 failed", "rerun", "Timeout")
    assert machines_made_and_destroyed(fly) == (1, 1)


def test_a_launch_that_fails_is_told_once_and_not_tried_again(
    fly: Cloud, run: Run, tmp_path: Path
) -> None:
    fly.fault("status=400,method=POST,path=*/machines,body=invalid config.image")
    ended = run(tmp_path, MANY.format(count=12), "-n", "4")
    ended.has("12 errors", "invalid config.image")
    assert fly.count("POST machines") == 1
    told = "the Machines API refused the machine of this spec"
    assert ended.output.count(f": {told}") >= 12
    assert "Traceback" not in ended.output
    assert ".py:" not in ended.output.partition("= ERRORS =")[2].partition("warnings summary")[0]
    assert ended.output.count(f"failed to start before in this run: {told}") >= 3


DIES = """
import pathlib, pytest

@pytest.mark.parametrize("number", range(9))
def test_it(fly_sandbox, fly_client, number):
    if number == 2:
        fly_client.destroy_machine(fly_sandbox.app, fly_sandbox.machine_id)
    fly_sandbox.exec("echo", timeout=60)
"""


@pytest.mark.parametrize("workers", [[], ["-n", "3"]], ids=["alone", "workers"])
def test_a_machine_that_died_is_replaced_when_allowed(
    fly: Cloud, run: Run, tmp_path: Path, workers: list[str]
) -> None:
    ended = run(tmp_path, DIES, "--fly-on-lost=relaunch", *workers)
    # how far the destroy has come by then is nobody's matter
    assert re.search(r"of this run is destroy(ing|ed): it died under the tests", ended.output)
    ended.has("2 machine(s)")
    assert fly.count("POST machines") >= 2
    failed = ended.output.count("FAILED test_it.py")
    # each worker has at most one test under way when the machine dies
    assert 1 <= failed <= (3 if workers else 1)
    ended.has(f"{9 - failed} passed")


def test_after_a_machine_died_every_other_test_fails_at_once(
    fly: Cloud, run: Run, tmp_path: Path
) -> None:
    ended = run(tmp_path, DIES)
    ended.has("2 passed", "1 failed", "6 errors", "--fly-on-lost=relaunch")
    assert fly.count("POST machines") == 1
    # the one look after the failure, the one at the end, and nothing for each test
    assert fly.count("GET machines/ID") <= 4
