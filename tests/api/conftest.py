from __future__ import annotations

from collections.abc import Iterator

import pytest
import stamina

from pytest_flymachines.api import MachinesClient
from tests.api.server import ApiServer, StepClock

TOKEN = "fo1_a-very-secret-token"


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with ApiServer() as server:
        yield server


@pytest.fixture
def clock() -> StepClock:
    return StepClock()


@pytest.fixture
def client(server: ApiServer, clock: StepClock) -> Iterator[MachinesClient]:
    with MachinesClient(TOKEN, base_url=server.url, clock=clock, pace=False) as client:
        yield client


@pytest.fixture
def no_back_off() -> Iterator[None]:
    """Retry at once, and at most three times."""
    with stamina.set_testing(True, attempts=3, cap=True):
        yield
