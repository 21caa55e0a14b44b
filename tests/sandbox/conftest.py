"""The handle's tests run over each way into a machine, on each engine.

Docker over the Machines API gets only the tests that are marked `core`; over the agent it gets all.
Its image is this computer's root, so the runner is the same text with the same shell and tools as
on bubblewrap, and the other tests would say of it what they say there. What docker does in its own
way is an exec (user, directory, variables, signals, sessions, terminals), its network, and its
start and stop: those tests are core. The other 400 would add 0.6 s each, since everything is a
`docker exec` of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest

from pytest_flymachines.sandbox import Sandbox
from tests.emulator.engines import dockerd

from .world import APP, SPEC, World, open_world

ENGINES = ("bubblewrap", "process", "docker")
WAYS = ("agent", "api")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out, and report as deselected, what docker does not get over the Machines API."""

    def left_out(item: pytest.Item) -> bool:
        values = getattr(getattr(item, "callspec", None), "params", {}).values()
        core = item.get_closest_marker("core") is not None
        return not core and "docker" in values and "api" in values

    chosen = [item for item in items if not left_out(item)]
    config.hook.pytest_deselected(items=[item for item in items if left_out(item)])
    items[:] = chosen


@pytest.fixture(scope="session")
def worlds() -> Iterator[Callable[[str], World]]:
    """An emulator for each engine, started when it is first asked for and kept to the end."""
    with ExitStack() as stack:

        @cache
        def world(engine: str) -> World:
            return stack.enter_context(open_world(engine))

        yield world


@pytest.fixture(scope="session", params=ENGINES)
def world(request: pytest.FixtureRequest, worlds: Callable[[str], World]) -> World:
    """An emulator with one engine."""
    if request.param == "docker" and (why := dockerd.missing()):
        pytest.skip(why)
    return worlds(request.param)


@pytest.fixture(scope="session")
def machine(world: World) -> str:
    """A machine for all tests of an engine."""
    return world.handle


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
