"""A machine ends itself, whatever the tests in it do."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path

import pytest

from pytest_flymachines.deadline import renew
from pytest_flymachines.machine_config import Identity, machine_config
from pytest_flymachines.marks import DEADLINE_KEY, RUN_KEY
from pytest_flymachines.spec import SandboxSpec
from tests.e2e.cloud import APP, Cloud, cloud

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """What a machine's root directory holds of ours."""
    guest = tmp_path / "opt" / "pytest-flymachines"
    guest.mkdir(parents=True)
    init = resources.files("pytest_flymachines.guest") / "init.sh"
    (guest / "init.sh").write_bytes(init.read_bytes())
    (guest / "no-foreign").write_text("1\n")
    return guest


@pytest.fixture
def start(root: Path) -> Iterator[Start]:
    """The real init, with nothing on PATH but what a test puts there."""
    started: list[subprocess.Popen[bytes]] = []

    def run(ttl_s: int, path: str = "/usr/bin:/bin", shell: str = "/bin/sh") -> object:
        (root / "ttl").write_text(f"{ttl_s}\n")
        environment = {"PATH": path, "PYTEST_FLYMACHINES_ROOT": str(root.parents[1])}
        command = [shell, "-c", f'. "{root}/init.sh"', "init.sh", "/workspace"]
        if shell.endswith("busybox"):
            command.insert(1, "sh")
        process = subprocess.Popen(command, env=environment)
        started.append(process)
        return process

    yield run  # type: ignore[misc]  # the object is the process
    for process in started:
        process.kill()
        process.wait()


def test_it_ends_by_itself(start: Start) -> None:
    process = start(2)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    assert process.wait(20) == 0


def test_it_works_with_a_posix_shell_alone(start: Start, root: Path) -> None:
    """No PATH leads to `sleep`, and none that init adds would in an image without it."""
    text = (root / "init.sh").read_text()
    (root / "init.sh").write_text(text.replace("PATH=$PATH:", "PATH=/nowhere #"))
    assert start(2, path="/nowhere").wait(30) == 0


@pytest.mark.parametrize("shell", ["/bin/dash", "/bin/bash", "/bin/busybox"])
def test_it_works_in_every_shell(start: Start, shell: str) -> None:
    if not Path(shell).exists():
        pytest.skip(f"there is no {shell} here")
    assert start(1, shell=shell).wait(20) == 0


def test_hogs_of_the_cpu_do_not_stop_it(start: Start) -> None:
    hogs = [subprocess.Popen(["/bin/sh", "-c", "while :; do :; done"]) for _ in range(4)]
    try:
        assert start(2).wait(60) == 0
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()


@pytest.mark.parametrize(
    "written", ["garbage", "1 08", "1 -5", "1 $(kill $$)", "1 99999999999", "", "1 2; exit"]
)
def test_what_a_test_writes_into_the_renewal_does_no_harm(
    start: Start, root: Path, written: str
) -> None:
    process = start(3)
    (root / "renew").write_text(f"{written}\n")
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1.5)
    assert process.wait(20) == 0


def test_a_renewal_moves_it_on_and_never_back(start: Start, root: Path) -> None:
    process = start(2)
    (root / "renew").write_text("1 7\n")
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(3)
    (root / "renew").write_text("2 1\n")
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(2)
    assert process.wait(30) == 0


@pytest.fixture
def fly() -> Iterator[Cloud]:
    with cloud() as found:
        yield found


def test_a_run_renews_both_the_machine_and_its_metadata(fly: Cloud) -> None:
    who = Identity(name="one", metadata={RUN_KEY: "run", DEADLINE_KEY: "0"}, ttl_s=5)
    config = machine_config(SandboxSpec(agent="off"), who, agent_token="secret")
    machine = fly.client.create_machine(APP, config, name="one")
    fly.client.wait(APP, machine.id, "started")
    assert renew(fly.client, APP, machine.id, 600) == 600
    # what somebody asked for before stands, and is what the metadata say
    assert renew(fly.client, APP, machine.id, 5) > 500
    time.sleep(6)
    assert [m.id for m in fly.machines()] == [machine.id]
    shown = fly.client.get_machine(APP, machine.id).metadata[DEADLINE_KEY]
    assert int(shown) > time.time() + 500


def test_shellcheck_like_syntax_of_every_shell_here(root: Path) -> None:
    for shell in filter(None, map(shutil.which, ("dash", "bash", "busybox"))):
        command = [shell, "sh"] if shell.endswith("busybox") else [shell]
        subprocess.run([*command, "-n", str(root / "init.sh")], check=True)
