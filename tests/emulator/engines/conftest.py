from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_flymachines.emulator.engines import ENGINES
from pytest_flymachines.emulator.engines.base import Engine
from tests.emulator.engines.lab import Lab


@dataclass(frozen=True)
class Subject:
    """An engine under test."""

    engine: Engine
    directory: Path
    image: str


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module", params=["bubblewrap", "process"])
def engine_name(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
async def subject(
    engine_name: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Subject]:
    directory = tmp_path_factory.mktemp("engine")
    engine = ENGINES[engine_name](directory)
    try:
        yield Subject(engine, directory, "busybox")
    finally:
        await engine.close()


@pytest.fixture
async def lab(subject: Subject, tmp_path: Path) -> AsyncIterator[Lab]:
    lab = Lab(subject.engine, subject.directory, tmp_path, subject.image)
    yield lab
    await lab.end()
