"""What the emulator knows: apps, machines, volumes, as records that SQLite can keep."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec import Struct, field

from pytest_flymachines.emulator.config import MachineConfig
from pytest_flymachines.emulator.ids import new_ulid
from pytest_flymachines.emulator.wiretime import now_ms

__all__ = [
    "App",
    "CheckStatus",
    "Event",
    "IpAssignment",
    "Lease",
    "Machine",
    "Secret",
    "Snapshot",
    "Transition",
    "Version",
    "Volume",
    "share_files",
]


class Secret(Struct):
    """An app secret."""

    name: str
    value: str
    created_ms: int
    updated_ms: int
    version: int


class IpAssignment(Struct):
    """An address of an app."""

    id: str
    ip: str
    type: str
    region: str
    service_name: str
    shared: bool
    created_ms: int
    network: str = ""
    org: str = ""


class App(Struct, kw_only=True):
    """An app; its name is global."""

    id: str
    number: int
    name: str
    org: str
    network: str
    created_ms: int
    role: str = ""
    secrets: dict[str, Secret] = {}
    secrets_version: int = 0
    ips: dict[str, IpAssignment] = {}


class Lease(Struct):
    """The exclusive right to change a machine; times in Unix seconds."""

    nonce: str
    expires_at: int
    owner: str
    description: str
    version: str


class Event(Struct, omit_defaults=True):
    """One event of a machine, as on the wire."""

    type: str
    status: str
    source: str
    timestamp: int
    id: str = ""
    request: dict[str, Any] | None = None


class Transition(Struct):
    """A state that was entered; `id` is that of its event, or one of its own."""

    id: str
    state: str
    version: str


class Version(Struct):
    """A config that was in force once."""

    version: str
    user_config: MachineConfig


class CheckStatus(Struct):
    """The last result of a check."""

    name: str
    status: str
    output: str
    updated_at: str


class Machine(Struct, kw_only=True):
    """A machine: what GET shows, and what flyd remembers beside it."""

    id: str
    name: str
    app: str
    region: str
    instance_id: str
    config: MachineConfig
    private_ip: str
    digest: str
    state: str = "created"
    created_ms: int = field(default_factory=now_ms)
    updated_ms: int = field(default_factory=now_ms)
    started_ms: int = 0
    destroyed_ms: int = 0
    events: list[Event] = []
    transitions: list[Transition] = []
    versions: list[Version] = []
    checks: dict[str, CheckStatus] = {}
    containers: dict[str, str] = {}
    lease: Lease | None = None
    cordoned: bool = False
    skip_secrets: bool = False
    launched: bool = False
    restarts_ms: list[int] = []
    memory_limit_mb: int = 0
    host_status: str = "ok"

    @property
    def policy(self) -> str:
        """The restart policy in force; none given means `on-failure`."""
        given = self.config.restart.policy if self.config.restart else ""
        return given or "on-failure"

    @property
    def max_retries(self) -> int:
        """Of the policy `on-failure`; 0 means the default."""
        return self.config.restart.max_retries if self.config.restart else 0

    @property
    def image(self) -> str:
        """Its image; that of the first container, if the machine itself has none."""
        containers = self.config.containers
        return self.config.image or (containers[0].image if containers else "")

    @property
    def volume(self) -> str:
        """Id of the mounted volume, or an empty string."""
        return self.config.mounts[0].volume if self.config.mounts else ""

    def record(
        self, kind: str, status: str, source: str, request: dict[str, Any] | None = None
    ) -> Event:
        """Put an event on top of the history."""
        event = Event(kind, status, source, now_ms(), new_ulid(), request)
        self.events.insert(0, event)
        launch = next((old for old in self.events[50:] if old.type == "launch"), None)
        del self.events[50:]
        if launch:
            self.events.append(launch)
        return event


def share_files(machines: Iterable[Machine]) -> None:
    """Keep equal contents of these machines' files once; the same program may be in all of them."""
    known: dict[str, str] = {}
    for machine in machines:
        for config in (machine.config, *(version.user_config for version in machine.versions)):
            for file in config.files or ():
                if file.raw_value:
                    file.raw_value = known.setdefault(file.raw_value, file.raw_value)


class Snapshot(Struct):
    """A snapshot of a volume."""

    id: str
    size: int
    volume_size: int
    digest: str
    created_ms: int
    status: str
    retention_days: int


class Volume(Struct, kw_only=True):
    """A volume."""

    id: str
    app: str
    name: str
    region: str
    zone: str
    size_gb: int
    encrypted: bool = True
    fstype: str = "ext4"
    state: str = "created"
    snapshot_retention: int = 5
    auto_backup_enabled: bool = True
    machine: str = ""
    bound_until_ms: int = 0
    created_ms: int = field(default_factory=now_ms)
    updated_ms: int = field(default_factory=now_ms)
    snapshots: list[Snapshot] = []
