"""What one emulator is made of; every handler gets it."""

from __future__ import annotations

from dataclasses import dataclass, field

from pytest_flymachines.emulator.auth import Hosts, Tokens
from pytest_flymachines.emulator.faults import Faults
from pytest_flymachines.emulator.flyd import Flyd
from pytest_flymachines.emulator.model import App
from pytest_flymachines.emulator.ratelimit import RateLimits
from pytest_flymachines.emulator.requestlog import RequestLog
from pytest_flymachines.emulator.store import Store

__all__ = ["Emulator"]


@dataclass(kw_only=True)
class Emulator:
    """The parts of one emulator.

    Attributes:
        store: The records.
        flyd: The machines.
        tokens: Who may call.
        faults: What goes wrong on demand.
        limits: Rate limits.
        requests: The request log.
        org: The organization of the token.
        region: The region that this emulator claims to be near to.
        latency_s: Added to every answer of the API.
        hosts: The names that it answers to.
        creating: Ids of machines that are being created, by (app, name).
    """

    store: Store
    flyd: Flyd
    tokens: Tokens
    faults: Faults
    limits: RateLimits
    requests: RequestLog
    org: str = "personal"
    region: str = "ord"
    latency_s: float = 0.0
    hosts: Hosts = field(default_factory=Hosts)
    creating: dict[tuple[str, str], str] = field(default_factory=dict)

    def next_app_number(self) -> int:
        """A number that no app has."""
        return max((app.number for app in self.store.apps.values()), default=1000) + 1

    def orgs(self) -> list[str]:
        """The organizations: the token's own, and those of the apps."""
        apps: list[App] = list(self.store.apps.values())
        return list(dict.fromkeys([self.org, *(app.org for app in apps)]))
