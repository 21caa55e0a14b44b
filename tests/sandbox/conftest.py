"""The handle's tests run over each way into a machine, on each engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_flymachines.sandbox import Sandbox
from pytest_flymachines.spec import SandboxSpec

from .world import APP, World, open_world

ENGINES = ("bubblewrap", "process")
WAYS = ("agent", "api")
SPEC = SandboxSpec(app="handle-tests", auto_destroy=False)


@pytest.fixture(scope="session", params=ENGINES)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """An emulator with one engine."""
    with open_world(request.param) as world:
        yield world


@pytest.fixture(scope="session")
def machine(world: World) -> str:
    """A machine for all tests of an engine."""
    return world.machine(SPEC, "handle")


@pytest.fixture(scope="session", params=WAYS)
def shared(request: pytest.FixtureRequest, world: World, machine: str) -> Sandbox:
    """The handle of that machine, over one way."""
    return world.sandbox(request.param, machine, SPEC)


@pytest.fixture
def sandbox(shared: Sandbox, world: World, machine: str) -> Iterator[Sandbox]:
    """The handle with an empty workspace; what a test starts, ends with it."""
    yield shared
    for started in shared.started:
        started.end()
    shared.started.clear()
    shared.close_forwards()
    clean = ["find", shared.workdir, "-mindepth", "1", "-delete"]
    assert world.client.exec(APP, machine, clean).exit_code == 0


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A directory of this computer."""
    return tmp_path


@pytest.fixture
def as_root(sandbox: Sandbox) -> Sandbox:
    """The handle of a machine whose commands are root's, and may become another user's."""
    if sandbox.exec("id -u").stdout != "0\n":
        pytest.skip("this engine runs commands as the user of this computer, who is not root")
    return sandbox
