"""What a host name and a port lead to: an app, and one of its external ports."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pytest_flymachines.emulator.config import Port
from pytest_flymachines.emulator.proxy.directory import AppRecord, Caller, Directory
from pytest_flymachines.emulator.proxy.message import Problem
from pytest_flymachines.emulator.proxy.routing import http_port, match

__all__ = ["Destination", "by_host", "by_port"]

DOMAINS = (".fly.dev", ".flycast")
PORT = re.compile("[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class Destination:
    """What a connection or request is addressed to.

    Attributes:
        app: The app.
        external: External port.
        port: Its entry in the config of one of the app's machines.
        caller: The machine that it comes from, by flycast.
    """

    app: AppRecord
    external: int
    port: Port
    caller: Caller | None = None

    @property
    def handlers(self) -> list[str]:
        """The handlers of the port."""
        return self.port.handlers or []

    @property
    def edge(self) -> str:
        """The region where it comes in, if not the proxy's."""
        return self.caller.region if self.caller else ""

    @property
    def secure(self) -> bool:
        """Whether visitors of this port come over TLS."""
        return "tls" in self.handlers


def by_host(directory: Directory, host: str, instance: str = "") -> Destination:
    """What a host name leads to.

    Args:
        directory: The apps.
        host: `<app>.fly.dev[:port]`; without a port that of the `http` handler.
        instance: The machine that it is for, if that is known.

    Raises:
        Problem: 404, there is no such app or port.
    """
    name, _, port = host.partition(":")
    app = next((name.removesuffix(end) for end in DOMAINS if name.endswith(end)), "")
    if not app or directory.app(app) is None:
        raise Problem(
            404,
            f"no app belongs to host {host!r}: send the Host header <app>.fly.dev or "
            "<app>.fly.dev:<external port>, with the name of an app that exists",
        )
    return by_port(directory, app, int(port) if PORT.fullmatch(port) else None, instance)


def by_port(
    directory: Directory, app: str, external: int | None, instance: str = ""
) -> Destination:
    """What an external port of an app leads to; None is the port of the `http` handler.

    Raises:
        Problem: 404, there is no such app, or no machine has a service with this port.
    """
    record = directory.app(app)
    if record is None:
        raise Problem(404, f"there is no app {app}")
    one = directory.machine(instance) if instance else None
    machines = (one,) if one and one.app == app else tuple(directory.machines(app))
    port = http_port(machines) if external is None else external
    matches = (match(machine, port) for machine in machines if port is not None)
    found = next(filter(None, matches), None)
    if found is None or port is None:
        what = "a service with the http handler" if port is None else f"a service on port {port}"
        raise Problem(
            404,
            f"[PR01] app {app} has no machine with {what}; services and their ports are part of "
            "a machine's config",
        )
    return Destination(record, port, found[1])
