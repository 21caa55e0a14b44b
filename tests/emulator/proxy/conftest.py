"""A proxy in front of real servers, which must leave nothing behind."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.emulator.proxy.world import World, open_descriptors


@pytest.fixture
def world() -> Iterator[World]:
    before = open_descriptors()
    world = World()
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
