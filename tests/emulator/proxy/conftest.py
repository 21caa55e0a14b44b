"""A proxy in front of real servers, which must leave nothing behind."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import httpx
import pytest

from tests.emulator.proxy.world import World, open_descriptors


@pytest.fixture(autouse=True, scope="package")
def many_descriptors() -> Iterator[None]:
    """Visitors, proxy and programs are one process here; many users may have 1024 only."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (10240 if hard < 0 else min(hard, 10240), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """One whose proxy waits a second for a machine, and a minute for a test that is `PATIENT`."""
    before = open_descriptors()
    world = World(patience_s=getattr(request, "param", 1.0))
    try:
        yield world
    finally:
        world.close()
    assert open_descriptors() <= before, "descriptors left open"


@pytest.fixture
def client(world: World) -> Iterator[httpx.Client]:
    """Talks to app `web` by way of the front."""
    with httpx.Client(
        base_url=world.proxy.url, headers={"Host": "web.fly.dev"}, trust_env=False, timeout=10
    ) as client:
        yield client
