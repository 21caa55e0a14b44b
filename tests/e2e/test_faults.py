"""A bad day at Fly: the run ends with the right message, and nothing is left."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from .cloud import Cloud, Project, cloud, until
from .forks import Forks

TESTS = """
import pytest

@pytest.mark.parametrize("number", range(3))
def test_it(fly_sandbox, number):
    assert fly_sandbox.exec("echo hi").stdout == "hi\\n"
"""
#: Waiting for what will not come is shorter than it would be at Fly.
IMPATIENT = """
from pytest_flymachines import attempts

attempts.START_TIMEOUT_S = 3
"""
#: And nothing is tried again for a minute, nor looked for that long.
GIVES_UP = """
from pytest_flymachines import attempts, backend

attempts._LOOK_FOR_S = 1.0
backend._api_transport.__defaults__ = (2.0,)
"""
CREATE = "method=POST,path=*/machines"
DESTROY = "method=DELETE,path=*/machines/*"


@pytest.fixture(scope="module")
def fly() -> Iterator[Cloud]:
    with cloud() as found:
        yield found


@pytest.fixture(autouse=True)
def clean(fly: Cloud) -> Iterator[None]:
    """Each test begins without requests and faults, and leaves nothing of ours behind."""
    fly.forget_requests()
    fly.clear_faults()
    yield
    fly.clear_faults()
    assert fly.machines() == []
    assert until(lambda: not fly.volumes(), 30)


@pytest.mark.parametrize(
    ("fault", "creates"),
    [
        (f"status=429,{CREATE},count=2", 3),
        (f"status=500,when=after,{CREATE},count=1", 1),
        (f"status=503,{CREATE},count=1", 2),
        (f"status=408,when=after,{CREATE},count=1", 1),
        (f"reset,{CREATE},count=1", 2),
        (f"reset=after,{CREATE},count=1", 1),
        (f"lost,{CREATE},count=1", 1),
        ("status=503,method=GET,path=*/wait,count=1", 1),
        ("lost,method=POST,path=*/volumes,count=1", 1),
        ("status=429,method=GET,count=3", 1),
        (f"status=500,{DESTROY},count=1", 1),
        (f"lost,{DESTROY},count=1", 1),
    ],
)
def test_what_passes_is_outlived(
    fly: Cloud, runs: Forks, tmp_path: Path, fault: str, creates: int
) -> None:
    """The tests pass, and there never was a second machine."""
    fly.fault(fault)
    volume = ["--fly-volume-gb=1"] if "volumes" in fault else []
    ended = runs.run(Project(tmp_path, TESTS), *volume, env=fly.environment)
    if volume:  # volumes have no unique names: another one was made, and both are removed
        assert fly.count("POST volumes") == 2
    ended.has("3 passed", "1 machine(s)")
    assert "LEFT BEHIND" not in ended.output
    assert fly.count("POST machines") == creates


def test_an_image_that_was_pushed_just_now_is_waited_for(
    fly: Cloud, runs: Forks, tmp_path: Path
) -> None:
    unknown = "body=failed to get manifest: not found [http 404]: MANIFEST_UNKNOWN"
    fly.fault(f"status=400,{CREATE},count=2,{unknown}")
    image = "--fly-image=registry.fly.io/mine:1"
    ended = runs.run(Project(tmp_path, TESTS), image, env=fly.environment)
    ended.has("3 passed", "1 machine(s)")
    assert fly.count("POST machines") == 3


def test_an_image_of_another_registry_is_refused_at_once(
    fly: Cloud, runs: Forks, tmp_path: Path
) -> None:
    fly.fault(f"status=400,{CREATE},body=failed to get manifest: MANIFEST_UNKNOWN")
    ended = runs.run(Project(tmp_path, TESTS), "--fly-image=alpine:nope", env=fly.environment)
    ended.has("refused the machine of this spec", "MANIFEST_UNKNOWN")
    assert fly.count("POST machines") == 1


def test_a_lost_answer_is_found_again_though_lists_lag(runs: Forks, tmp_path: Path) -> None:
    with cloud("--list-delay", "2500") as slow:
        slow.fault(f"lost,{CREATE},count=1")
        ended = runs.run(Project(tmp_path, TESTS), env=slow.environment)
        ended.has("3 passed", "1 machine(s)")
        assert slow.count("POST machines") == 1
        assert until(lambda: not slow.machines(), 30)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("stuck=created,count=1", "but created"),
        ("image-pull,count=1", "will not be started"),
        ("death=0,count=1", "its main process ended"),
        (f"status=422,{CREATE},body=could not find a candidate host,count=1", "candidate host"),
    ],
)
def test_the_next_region_is_tried(
    fly: Cloud, runs: Forks, tmp_path: Path, fault: str, said: str
) -> None:
    fly.fault(fault)
    project = Project(tmp_path, TESTS, IMPATIENT)
    args = ["--fly-region=ord,iad", "--fly-volume-gb=1", "--fly-agent=off"]
    ended = runs.run(project, *args, env=fly.environment)
    ended.has("3 passed")
    assert re.search(
        f"^fly sandbox: no machine in ord, trying iad: .*{said}", ended.output, re.MULTILINE
    )
    assert fly.count("POST machines") == 2


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["-n", "2", "-v"], {"creating pytest-", "no machine in ord, trying iad", "preparing"}),
        (["-n", "2"], {"no machine in ord, trying iad"}),
        (["-q"], set()),
    ],
    ids=["workers, verbose", "workers", "quiet"],
)
def test_a_launch_says_what_it_does(
    fly: Cloud, runs: Forks, tmp_path: Path, args: list[str], told: set[str]
) -> None:
    fly.fault(f"status=422,{CREATE},body=could not find a candidate host,count=1")
    ended = runs.run(Project(tmp_path, TESTS), "--fly-region=ord,iad", *args, env=fly.environment)
    ended.has("3 passed", *(f"\nfly sandbox: {text}" for text in told))
    lines = ended.output.count("fly sandbox: ")
    # the header, and what the end says: quiet has but the latter
    assert lines == len(told) + (1 if "-q" in args else 3), ended.output
    # the sweep's and the end's, which does not look for what was refused
    assert fly.count("GET machines") == 2


def test_the_final_error_lists_each_try(fly: Cloud, runs: Forks, tmp_path: Path) -> None:
    fly.fault("stuck=created")
    project = Project(tmp_path, TESTS, IMPATIENT)
    ended = runs.run(project, "--fly-region=ord,iad", env=fly.environment)
    ended.has("3 errors", "1. ord: ", "2. iad: ", "after 3 s, but created", "--fly-region")


@pytest.mark.parametrize("regions", ["ord", "ord,iad"])
def test_a_boot_loop_is_an_error_that_lists_each_try(
    fly: Cloud, runs: Forks, tmp_path: Path, regions: str
) -> None:
    fly.fault("death=0")
    ended = runs.run(
        Project(tmp_path, TESTS), f"--fly-region={regions}", "--fly-agent=off", env=fly.environment
    )
    second = regions.split(",")[-1]
    ended.has("3 errors", "1. ord: machine ", f"2. {second}: machine ", "check the image")
    assert fly.count("POST machines") == 2


@pytest.mark.parametrize("fault", ["status=429", "status=500", "status=503", "reset"])
def test_a_create_that_never_works_is_an_error(
    fly: Cloud, runs: Forks, tmp_path: Path, fault: str
) -> None:
    fly.fault(f"{fault},{CREATE}")
    ended = runs.run(
        Project(tmp_path, TESTS, GIVES_UP), "--fly-region=ord,iad", env=fly.environment
    )
    ended.has("3 errors", "POST /v1/apps/cook-sandbox/machines")
    assert ended.code == 1


def test_where_lists_are_broken_the_name_still_finds_the_machine(
    fly: Cloud, runs: Forks, tmp_path: Path
) -> None:
    """Its id is in the refusal of the next create; and what is known by its id is taken down."""
    fly.fault(f"lost,{CREATE}")
    fly.fault("status=500,method=GET,path=*/machines")
    ended = runs.run(Project(tmp_path, TESTS, GIVES_UP), env=fly.environment)
    fly.clear_faults()
    ended.has("3 passed", "1 machine(s)", "could not be listed")


def test_no_capacity_anywhere_says_so_without_another_try(
    fly: Cloud, runs: Forks, tmp_path: Path
) -> None:
    fly.fault(f"status=422,{CREATE},body=could not find a candidate host")
    ended = runs.run(Project(tmp_path, TESTS), env=fly.environment)
    ended.has("3 errors", "could not find a candidate host", "smaller guest")
    assert fly.count("POST machines") == 1


def test_an_api_that_is_not_there(fly: Cloud, runs: Forks, tmp_path: Path) -> None:
    nowhere = {**fly.environment, "FLY_FLAPS_BASE_URL": "http://no-such-host.invalid"}
    ended = runs.run(Project(tmp_path, TESTS), env=nowhere)
    ended.has("3 errors", "no-such-host.invalid")
    assert ended.code == 1


def test_a_destroy_that_never_works_is_reported_with_the_command(
    fly: Cloud, runs: Forks, tmp_path: Path
) -> None:
    fly.fault(f"status=400,{DESTROY},body=host trouble")
    ended = runs.run(Project(tmp_path, TESTS), "--fly-ttl=10", env=fly.environment)
    ended.has("3 passed", "LEFT BEHIND", "host trouble", "fly machine destroy --force")
    assert ended.code == 0
    assert until(lambda: not fly.machines(), 30), "it did not end itself"


def test_a_budget_refuses_the_second_machine(fly: Cloud, runs: Forks, tmp_path: Path) -> None:
    tests = """
def test_it(fly_sandbox, fly_sandbox_factory):
    fly_sandbox_factory(memory_mb=2048)
"""
    ended = runs.run(Project(tmp_path, tests), "--fly-budget=0.006", env=fly.environment)
    ended.has("1 failed", "--fly-budget=0.006: 2 machine(s)")
    assert fly.count("POST machines") == 1


def test_a_name_that_somebody_else_has(fly: Cloud, runs: Forks, tmp_path: Path) -> None:
    """The next name is taken; the machine that has ours stays as it is."""
    first = Project(tmp_path / "a", TESTS)
    kept = runs.run(first, "--fly-run-id=ci 7", "--fly-keep=always", env=fly.environment)
    kept.has("fly sandbox: kept")
    (mine,) = fly.machines()
    fly.client.set_metadata(mine_app := "cook-sandbox", mine.id, "pytest_flymachines_run", "other")
    runs.run(Project(tmp_path / "b", TESTS), "--fly-run-id=ci 7", env=fly.environment).has(
        "3 passed"
    )
    assert [machine.id for machine in fly.machines()] == [mine.id]
    assert fly.count("POST machines") == 3  # the second of them conflicts
    fly.client.destroy_machine(mine_app, mine.id)


def test_a_kept_machine_of_a_local_run_can_be_reached(runs: Forks, tmp_path: Path) -> None:
    project = Project(tmp_path, TESTS)
    local = {"PYTEST_ADDOPTS": "", "FLY_API_TOKEN": ""}
    args = ["--fly-keep=always", "--fly-ttl=10", "--fly-engine=process"]
    ended = runs.run(project, *args, env=local, mode="local")
    ended.has("fly sandbox: kept", "emulator.env")
    words = ended.output.replace("`", " ").replace(",", " ").split()
    (file,) = [Path(word) for word in words if word.endswith("emulator.env")]
    assert file.stat().st_mode & 0o077 == 0
    reach = dict(line.split("=", 1) for line in file.read_text().splitlines())
    (machine,) = [word for word in words if word.startswith("--fly-machine=")]
    runs.run(project, machine, env=reach).has("3 passed")
    pid = int(ended.output.partition("(process")[2].split(")")[0])
    assert until(lambda: not Path(f"/proc/{pid}").exists(), 40), "the emulator lives on"
