"""`AgentChannel`: the channel to a machine over the bundled agent's HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from pytest_flymachines._clock import Clock
from pytest_flymachines._http import Transport
from pytest_flymachines.agent.checkpoints import Checkpoints
from pytest_flymachines.agent.client import AgentClient
from pytest_flymachines.agent.files import Files
from pytest_flymachines.agent.processes import Processes

if TYPE_CHECKING:
    from pytest_flymachines.agent.forward import PortForward

__all__ = ["AgentChannel"]


class AgentChannel(Processes, Files, Checkpoints):
    """The bundled agent as a `sandbox.channel.Channel`. Thread-safe.

    Reads, polls and other requests that do no harm twice are sent again when a connection
    drops; a read goes on from where it was.
    """

    name: Literal["agent", "api"] = "agent"

    def __init__(
        self,
        transport: Transport,
        *,
        base_url: str,
        host: str | None = None,
        app: str,
        machine_id: str,
        token: str | None,
        clock: Clock,
        base: bytes = b"",
    ) -> None:
        """Make a channel; nothing is sent yet.

        Args:
            transport: Carries the requests; not closed by the channel.
            base_url: Where the agent, or a proxy that routes to it, answers.
            host: `Host` header, if it is not that of `base_url`.
            app: App of the machine.
            machine_id: Machine; also sent as `fly-force-instance-id`, which Fly's proxy routes
                by (https://fly.io/docs/networking/dynamic-request-routing/).
            token: The agent's bearer token; None if it was started without.
            clock: Time between tries.
            base: Directory that relative paths start from; by default the agent's own base.
        """
        client = AgentClient(
            transport,
            base_url=base_url,
            host=host,
            app=app,
            machine_id=machine_id,
            token=token,
            clock=clock,
        )
        super().__init__(client, base)

    def __repr__(self) -> str:
        return f"<AgentChannel {self._client.base_url}{self._client.prefix}>"

    def with_base(self, base: bytes) -> AgentChannel:
        """The same way in, with relative paths resolved from `base`."""
        other = object.__new__(AgentChannel)
        other._client = self._client
        other._base = base
        return other

    def close(self) -> None:
        """Nothing: the transport belongs to whoever made it."""

    def health(self) -> dict[str, Any]:
        """What the agent says about itself: `version`, `pid`, `base`, `capabilities`."""
        answer: dict[str, Any] = msgspec.json.decode(self._client.call("GET", "/agent/health"))
        return answer

    def log(self) -> list[str]:
        """The end of the agent's log."""
        lines: list[str] = msgspec.json.decode(self._client.call("GET", "/agent/log"))["log"]
        return lines

    def forward(self, port: int) -> PortForward:
        """A TCP port on this computer's loopback that leads to one of the machine's loopback.

        To be closed by the caller; the traffic is not recorded in cassettes.
        """
        from pytest_flymachines.agent.forward import PortForward

        client = self._client
        path = f"{client.prefix}/agent/forward/{port}"
        return PortForward(client.base_url, path, client.headers)
