"""Ports of the machine, from this computer."""

from __future__ import annotations

import threading
from typing import Protocol, Self, runtime_checkable

import msgspec

from pytest_flymachines._http import Http, Transport, TransportError
from pytest_flymachines.errors import FlyMachinesError
from pytest_flymachines.sandbox.attachment import Attached, Attachment

__all__ = ["EmulatorPorts", "Forward", "PortAccess", "PortVerbs"]


class Forward(Protocol):
    """A TCP port of this computer's loopback that leads to a port in the machine.

    Attributes:
        host: 127.0.0.1.
        port: The port to connect to.
    """

    host: str
    port: int

    def close(self) -> None:
        """Stop listening and cut what is connected."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc_info: object) -> None: ...


@runtime_checkable
class PortAccess(Protocol):
    """A way to the machine's ports; the agent's channel is one."""

    def forward(self, port: int) -> Forward:
        """Start listening on loopback for a port of the machine."""
        ...


class PortVerbs(Attached):
    """Reaching what listens in the machine. WebSockets and any other TCP pass as they are."""

    def __init__(self, attachment: Attachment) -> None:
        super().__init__(attachment)
        self._forwards: dict[int, Forward] = {}
        self._forwards_lock = threading.Lock()

    def url(self, port: int) -> str:
        """A URL, without slash at its end, that leads to a port of the machine.

        It stays good as long as the handle; asked again, it is the same.

        Args:
            port: What a server in the machine listens on, on its loopback or on all addresses.

        Raises:
            FlyMachinesError: There is no way to the machine's ports.
        """
        at = self.attachment
        if self._ports() is None and port in at.spec.ports and not at.replayed:
            return f"https://{at.app}.fly.dev:{port}"
        with self._forwards_lock:
            if port not in self._forwards:
                self._forwards[port] = self.forward(port)
            forward = self._forwards[port]
        return f"http://{forward.host}:{forward.port}"

    def forward(self, port: int) -> Forward:
        """A TCP port of this computer's loopback that leads to a port of the machine.

        Args:
            port: What a server in the machine listens on.

        Returns:
            Where to connect (`host`, `port`); `with`, or `close()`, ends it.

        Raises:
            FlyMachinesError: There is no way to the machine's ports.
        """
        if not 1 <= port <= 65535:
            raise ValueError(f"port={port!r}: expected 1 to 65535")
        ports = self._ports()
        if ports is None:
            at = self.attachment
            raise FlyMachinesError(
                f"no way to port {port} of machine {at.machine_id}: in replay there is none (what "
                "goes through `http(port)` is replayed), and on Fly it needs the agent (python3 in "
                "the image, --fly-agent=auto), or the port among the spec's `ports`"
            )
        return ports.forward(port)

    def close_forwards(self) -> None:
        """End what `url` started."""
        with self._forwards_lock:
            for forward in self._forwards.values():
                forward.close()
            self._forwards.clear()

    def _ports(self) -> PortAccess | None:
        at = self.attachment
        if at.replayed:
            return None
        if at.ports is not None:
            return at.ports
        return at.channel if isinstance(at.channel, PortAccess) else None


class EmulatorPorts:
    """Ports of a machine of the emulator's, which opens them on loopback itself."""

    def __init__(
        self, transport: Transport, control_url: str, token: str, app: str, machine_id: str
    ) -> None:
        """Make a way; nothing is sent yet.

        Args:
            transport: Carries requests to the control port; never a recorder.
            control_url: The emulator's control interface.
            token: The emulator's.
            app: App of the machine.
            machine_id: The machine.
        """
        self._http = Http(transport, control_url, {"authorization": f"Bearer {token}"})
        self._app = app
        self._machine_id = machine_id

    def forward(self, port: int) -> Forward:
        """Have the emulator listen for a port of the machine."""
        target = _Target(app=self._app, machine=self._machine_id, port=port)
        answer = msgspec.json.decode(self.ask("POST", target), type=_Listener)
        return _EmulatorForward(self, target, answer.host, answer.port)

    def ask(self, method: str, target: _Target) -> bytes:
        """Send a request about a forward; the body of its answer."""
        try:
            response = self._http.request(method, "/forwards", json=target)
        except TransportError as error:
            raise FlyMachinesError(
                f"the emulator did not answer {method} /forwards: {error}"
            ) from error
        if response.status_code >= 400:
            raise FlyMachinesError(
                f"the emulator answered {response.status_code} to {method} /forwards of port "
                f"{target.port}, machine {self._machine_id}: {response.text.strip()}"
            )
        return response.content


class _Target(msgspec.Struct, frozen=True):
    app: str
    machine: str
    port: int


class _Listener(msgspec.Struct, frozen=True):
    host: str
    port: int


class _EmulatorForward:
    def __init__(self, ports: EmulatorPorts, target: _Target, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self._ports = ports
        self._target = target

    def close(self) -> None:
        self._ports.ask("DELETE", self._target)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
