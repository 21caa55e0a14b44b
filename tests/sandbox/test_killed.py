"""What becomes of the machine when the process that used it is killed in the middle."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from pytest_flymachines.sandbox import Sandbox

from .support import gone, wait_until
from .world import World

CHILD = """
import sys, time
from types import SimpleNamespace
from tests.sandbox.world import SPEC, reach

names = ("api_url", "proxy_url", "control_url", "token")
emulator = SimpleNamespace(**dict(zip(names, sys.argv[1:])))
image, way, machine, code = sys.argv[5:]
with reach(emulator, image) as world:
    sandbox = world.sandbox(way, machine, SPEC)
    exec(code)
"""

UPLOAD = """
def pieces():
    for _ in range(40):
        yield bytes(range(256)) * 200
    print("halfway", flush=True)
    time.sleep(600)

sandbox.write_file("new", pieces())
"""


@pytest.fixture
def user(
    sandbox: Sandbox, world: World, machine: str
) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """`user(code)`: another process that uses `sandbox`."""
    started = []

    def start(code: str) -> subprocess.Popen[str]:
        at = world.emulator
        where = [at.api_url, at.proxy_url, at.control_url, at.token, world.image]
        arguments = [*where, sandbox.attachment.channel.name, machine, code]
        child = [sys.executable, "-c", CHILD, *arguments]
        process = subprocess.Popen(child, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_timeout_holds_although_its_caller_was_killed(
    sandbox: Sandbox, user: Callable[[str], subprocess.Popen[str]]
) -> None:
    script = "sleep 611 & echo $! >child; echo $$ >new; mv new parent; wait"
    process = user(f"sandbox.exec({script!r}, timeout=4)")
    wait_until(lambda: sandbox.exists("parent"))
    pids = [sandbox.read_text(name).strip() for name in ("parent", "child")]
    process.send_signal(signal.SIGKILL)
    for pid in pids:
        wait_until(partial(gone, sandbox, pid))


def test_an_upload_whose_sender_was_killed_leaves_no_half_file(
    sandbox: Sandbox, user: Callable[[str], subprocess.Popen[str]]
) -> None:
    sandbox.write_file("old", "whole")
    process = user(UPLOAD)
    assert process.stdout is not None
    assert process.stdout.readline() == "halfway\n"
    process.send_signal(signal.SIGKILL)
    wait_until(lambda: [f.name for f in sandbox.list_files()] == ["old"])
    assert sandbox.read_text("old") == "whole"
