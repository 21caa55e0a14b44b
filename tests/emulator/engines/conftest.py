from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_flymachines.emulator.engines import ENGINES
from pytest_flymachines.emulator.engines.base import Engine
from tests.emulator.engines import dockerd, podmand
from tests.emulator.engines.lab import Lab

#: What speaks Docker's API, and the fixture that says where.
DAEMONS = {"docker": "docker_host", "podman": "podman_host"}


@dataclass(frozen=True)
class Subject:
    """An engine under test."""

    engine: Engine
    directory: Path


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def docker_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a Docker daemon listens that is nobody's but ours."""
    if why := dockerd.missing():
        pytest.skip(why)
    with dockerd.daemon(tmp_path_factory.mktemp("dockerd")) as url:
        yield url


@pytest.fixture(scope="session")
def podman_host() -> Iterator[str]:
    """Where a podman service listens that is nobody's but ours."""
    with podmand.service() as url:
        yield url


@pytest.fixture(scope="module", params=["bubblewrap", "process"])
def engine_name(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
async def subject(
    engine_name: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Subject]:
    directory = tmp_path_factory.mktemp("engine")
    with pytest.MonkeyPatch.context() as patch:
        if engine_name in DAEMONS:
            patch.setenv("DOCKER_HOST", request.getfixturevalue(DAEMONS[engine_name]))
        engine = ENGINES["docker" if engine_name in DAEMONS else engine_name](directory)
        try:
            yield Subject(engine, directory)
        finally:
            await engine.close()


@pytest.fixture
async def lab(subject: Subject, engine_name: str, tmp_path: Path) -> AsyncIterator[Lab]:
    lab = Lab(
        subject.engine,
        subject.directory,
        tmp_path,
        podmand.IMAGE if engine_name == "podman" else dockerd.IMAGE,
        tells_signals=subject.engine.name != "docker",
    )
    yield lab
    await lab.end()
