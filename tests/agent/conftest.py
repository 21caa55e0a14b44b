"""One agent for each module, and a channel to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pytest_flymachines.agent.channel import AgentChannel
from tests.agent.running import RunningAgent, open_channel, running_agent


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAgent]:
    """An agent that asks for its token."""
    with running_agent(tmp_path_factory.mktemp("agent")) as running:
        yield running


@pytest.fixture(scope="module")
def channel(agent: RunningAgent) -> Iterator[AgentChannel]:
    """The channel to `agent`."""
    with open_channel(agent) as opened:
        yield opened
