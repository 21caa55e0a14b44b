"""Ports of the machine, from this computer."""

from __future__ import annotations

import functools
import threading
from collections import Counter
from collections.abc import Callable
from typing import Protocol, Self, runtime_checkable

import msgspec

from pytest_flymachines._http import Http, Transport, TransportError
from pytest_flymachines.errors import FlyMachinesError
from pytest_flymachines.sandbox.arguments import (
    check_port,
)
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
        self._forwards: dict[int, Forward] = {}
        self._forwards_lock = threading.Lock()
        super().__init__(attachment)

    def attach(self, attachment: Attachment) -> None:
        """Lead to the machine of `attachment` from now on, URLs included."""
        self.close_forwards()
        super().attach(attachment)

    def url(self, port: int) -> str:
        """A URL, without slash at its end, that leads to a port of the machine.

        It stays good as long as the handle; asked again, it is the same.

        Args:
            port: What a server in the machine listens on, on its loopback or on all addresses.

        Raises:
            ValueError: `port` is not from 1 to 65535.
            FlyMachinesError: There is no way to the machine's ports.
        """
        check_port(port)
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
            ValueError: `port` is not from 1 to 65535.
            FlyMachinesError: There is no way to the machine's ports.
        """
        check_port(port)
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
        # the emulator has one listener for each port, whoever asks for it
        self._users: Counter[int] = Counter()
        self._lock = threading.Lock()

    def forward(self, port: int) -> Forward:
        """Have the emulator listen for a port of the machine."""
        with self._lock:
            answer = self._ask("POST", port)
            self._users[port] += 1
        listener = msgspec.json.decode(answer, type=_Listener)
        return _EmulatorForward(self, port, listener)

    def release(self, port: int) -> None:
        """Have the emulator stop listening, when nobody here uses the port any more."""
        with self._lock:
            self._users[port] -= 1
            if not self._users[port]:
                self._ask("DELETE", port)

    def _ask(self, method: str, port: int) -> bytes:
        target = _Target(app=self._app, machine=self._machine_id, port=port)
        try:
            response = self._http.request(method, "/forwards", json=target)
        except TransportError as error:
            raise FlyMachinesError(
                f"the emulator did not answer {method} /forwards: {error}"
            ) from error
        # the listener of a machine that is gone went with it
        if response.status_code >= 400 and (method, response.status_code) != ("DELETE", 404):
            raise FlyMachinesError(
                f"the emulator answered {response.status_code} to {method} /forwards of port "
                f"{port}, machine {self._machine_id}: {response.text.strip()}"
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
    def __init__(self, ports: EmulatorPorts, port: int, listener: _Listener) -> None:
        self.host = listener.host
        self.port = listener.port
        self._release: Callable[[], None] | None = functools.partial(ports.release, port)

    def close(self) -> None:
        release, self._release = self._release, None
        if release:
            release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
