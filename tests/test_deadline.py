"""A machine ends itself, whatever the tests in it do."""

from __future__ import annotations

import os
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


class Init(subprocess.Popen[bytes]):
    """The real init, started with nothing on PATH but what a test puts there."""

    def __init__(
        self, root: Path, ttl_s: int, path: str = "/usr/bin:/bin", shell: str = "/bin/sh"
    ) -> None:
        (root / "ttl").write_text(f"{ttl_s}\n")
        environment = {"PATH": path, "PYTEST_FLYMACHINES_ROOT": str(root.parents[1])}
        command = [shell, "-c", f'. "{root}/init.sh"', "init.sh", "/workspace"]
        if shell.endswith("busybox"):
            command.insert(1, "sh")
        self.began = time.monotonic()
        super().__init__(command, env=environment)

    def ended_after(self) -> float:
        """Wait for its end, which must be a good one; how long it lived at most, in seconds.

        It counts whole seconds of the uptime, so it may be one less than its time to live.
        """
        assert self.wait(60) == 0
        return time.monotonic() - self.began


Start = Callable[..., Init]


def make_root(path: Path) -> Path:
    """What a machine's root directory holds of ours."""
    guest = path / "opt" / "pytest-flymachines"
    guest.mkdir(parents=True)
    init = resources.files("pytest_flymachines.guest") / "init.sh"
    (guest / "init.sh").write_bytes(init.read_bytes())
    (guest / "no-foreign").write_text("1\n")
    return guest


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_root(tmp_path)


@pytest.fixture
def start(root: Path) -> Iterator[Start]:
    """`start(ttl_s, ...)`: an init that ends with the test."""
    started: list[Init] = []

    def run(ttl_s: int, *, root: Path = root, **how: str) -> Init:
        started.append(Init(root, ttl_s, **how))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.wait()


def test_it_ends_by_itself(start: Start) -> None:
    assert start(2).ended_after() >= 1


def test_it_works_with_a_posix_shell_alone(start: Start, root: Path) -> None:
    """No PATH leads to `sleep`, and none that init adds would in an image without it."""
    text = (root / "init.sh").read_text()
    (root / "init.sh").write_text(text.replace("PATH=$PATH:", "PATH=/nowhere #"))
    assert start(2, path="/nowhere").ended_after() >= 1


@pytest.mark.parametrize("shell", ["/bin/dash", "/bin/bash", "/bin/busybox"])
def test_it_works_in_every_shell(start: Start, shell: str) -> None:
    if not Path(shell).exists():
        pytest.skip(f"there is no {shell} here")
    start(1, shell=shell).ended_after()


def test_hogs_of_the_cpu_do_not_stop_it(start: Start) -> None:
    hogs = [subprocess.Popen(["/bin/sh", "-c", "while :; do :; done"]) for _ in range(4)]
    try:
        start(2).ended_after()
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()


def test_what_a_test_writes_into_the_renewal_does_no_harm(start: Start, tmp_path: Path) -> None:
    """It neither ends the machine now nor keeps it alive; all are tried at once."""
    texts = ["garbage", "1 08", "1 -5", "1 $(kill $$)", "1 99999999999", "", "1 2; exit"]
    running = {}
    for number, text in enumerate(texts):
        root = make_root(tmp_path / str(number))
        (root / "renew").write_text(f"{text}\n")
        running[text] = start(3, root=root)
    lived = dict.fromkeys(texts, 0.0)
    while running:
        for text in [text for text, process in running.items() if process.poll() is not None]:
            lived[text] = running.pop(text).ended_after()
        time.sleep(0.02)
    assert min(lived.values()) >= 2, lived


def test_a_renewal_moves_it_on_and_never_back(start: Start, root: Path) -> None:
    os.mkfifo(root / "renew")
    process = start(1)
    (root / "renew").write_text("1 5\n")  # once init has opened it to read
    (root / "new").write_text("2 1\n")
    (root / "new").replace(root / "renew")
    assert process.ended_after() >= 4


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
