"""What a handle is made of: one machine, and the way into it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pytest_flymachines._clock import Clock
from pytest_flymachines._http import Transport
from pytest_flymachines.sandbox.channel import Channel
from pytest_flymachines.sandbox.watched import watched
from pytest_flymachines.spec import SandboxSpec

if TYPE_CHECKING:
    from pytest_flymachines.agent.terminal import FrameSocket
    from pytest_flymachines.api import MachinesClient
    from pytest_flymachines.sandbox.ports import PortAccess

__all__ = ["Attached", "Attachment", "Started"]


@dataclass(frozen=True, kw_only=True)
class Attachment:
    """A sandbox as provisioning hands it over.

    Attributes:
        client: The Machines API.
        channel: The way into the machine.
        clock: Time for everything that waits.
        app: Fly app of the machine.
        machine_id: Machine id.
        region: Region code.
        spec: What the sandbox was asked to be.
        workdir: Absolute path of the workspace in the machine.
        private_ip: 6PN address; empty when it is not known.
        agent_url: Where the agent's HTTP answers; None without agent.
        ports: The way to ports of the machine from here; None when there is none.
        revive: Called after the machine was started again; brings agent and workspace back,
            and returns what was lost by the way, in words (empty: nothing).
        extend: Moves the machine's deadline to so many seconds from now.
        borrowed: The machine was there before the run, which never destroys it.
        recorded: Puts a recorder around a transport (None in replay) to what is named.
        frames: Puts a recorder around a WebSocket: takes its path and what opens it.
        replayed: Cassettes answer; there is no machine and no socket.
    """

    client: MachinesClient
    channel: Channel
    clock: Clock
    app: str
    machine_id: str
    region: str
    spec: SandboxSpec
    workdir: str
    private_ip: str = ""
    agent_url: str | None = None
    ports: PortAccess | None = None
    revive: Callable[[], str] | None = None
    extend: Callable[[float], object] | None = None
    borrowed: bool = False
    recorded: Callable[[Transport | None, str], Transport] | None = None
    frames: Callable[[str, Callable[[], FrameSocket]], FrameSocket] | None = None
    replayed: bool = False


class Started(Protocol):
    """A process or terminal that was started and may still run."""

    def end(self) -> None:
        """End it, if it still runs; harmless when repeated."""
        ...

    def transcript(self) -> str:
        """What it is, its state and its output, for the report of a failed test."""
        ...


class Attached:
    """Base of the handle's parts: they share one attachment.

    Attributes:
        attachment: What the handle was made of.
        started: Processes and terminals that were started by this handle, for whoever ends
            them at the end of a test.
    """

    def __init__(self, attachment: Attachment) -> None:
        self.started: list[Started] = []
        self.attach(attachment)

    def attach(self, attachment: Attachment) -> None:
        """Lead to this machine from now on."""
        self.attachment = attachment
        self._channel: Channel = watched(attachment.channel, self._state, attachment.machine_id)

    def _state(self) -> str:
        at = self.attachment
        return at.client.get_machine(at.app, at.machine_id).state

    @property
    def _clock(self) -> Clock:
        return self.attachment.clock
