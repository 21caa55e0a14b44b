"""What the Machines API answers, as msgspec structs.

Fields that are missing or null take their defaults, unknown ones are ignored. Field names are
those of the API (https://docs.machines.dev).
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

__all__ = [
    "App",
    "Check",
    "ExecResponse",
    "ExitEvent",
    "ImageRef",
    "IpAssignment",
    "Lease",
    "Machine",
    "MachineEvent",
    "MachineVersion",
    "Organization",
    "Region",
    "Regions",
    "StartResponse",
    "Volume",
]


class ImageRef(Struct, frozen=True, kw_only=True):
    """The image that a machine runs."""

    registry: str = ""
    repository: str = ""
    tag: str = ""
    digest: str = ""
    labels: dict[str, str] = field(default_factory=dict)


class ExitEvent(Struct, frozen=True, kw_only=True):
    """How a machine's main process ended.

    Attributes:
        exit_code: Of the main process; 128 + n if signal n ended it.
        guest_exit_code: Of the virtual machine.
        signal: Signal number, or -1.
        guest_signal: Signal number, or -1.
        oom_killed: The kernel ran out of memory.
        requested_stop: Somebody asked for the stop: API, proxy or an update.
        restarting: The restart policy starts it again.
        exited_at: RFC 3339 text; some servers send Unix milliseconds.
    """

    exit_code: int = 0
    guest_exit_code: int = 0
    signal: int = -1
    guest_signal: int = -1
    oom_killed: bool = False
    requested_stop: bool = False
    restarting: bool = False
    exited_at: str | int = ""

    def __str__(self) -> str:
        notes = [
            name for name in ("oom_killed", "requested_stop", "restarting") if getattr(self, name)
        ]
        return f"exit code {self.exit_code}" + (f" ({', '.join(notes)})" if notes else "")


class _MonitorEvent(Struct, frozen=True):
    exit_event: ExitEvent | None = None


class _EventRequest(Struct, frozen=True):
    exit_event: ExitEvent | None = None
    # newer payloads wrap it (https://github.com/superfly/fly-go/blob/main/machine_types.go)
    monitor_event: _MonitorEvent | None = field(name="MonitorEvent", default=None)
    restart_count: int = 0


class MachineEvent(Struct, frozen=True, kw_only=True):
    """Something that happened to a machine.

    Attributes:
        id: ULID, so ids sort by time; empty from older servers.
        type: `launch`, `start`, `exit`, `stop`, `restart`, `suspend`, `update`, `destroy`, ...
        status: State of the machine after it.
        source: `user` (an API call) or `flyd`.
        timestamp: Unix milliseconds.
    """

    id: str = ""
    type: str = ""
    status: str = ""
    source: str = ""
    timestamp: int = 0
    request: _EventRequest | None = None

    @property
    def exit_event(self) -> ExitEvent | None:
        """How the main process ended, if this is an `exit`."""
        if self.request is None:
            return None
        wrapped = self.request.monitor_event
        return (wrapped.exit_event if wrapped else None) or self.request.exit_event

    @property
    def restart_count(self) -> int:
        """How often the restart policy has started the machine."""
        return self.request.restart_count if self.request else 0


class Check(Struct, frozen=True, kw_only=True):
    """The last result of a health check; `status` is `passing`, `warning` or `critical`."""

    name: str = ""
    status: str = ""
    output: str = ""
    updated_at: str = ""


class Machine(Struct, frozen=True, kw_only=True):
    """A machine.

    Attributes:
        state: `created`, `started`, `stopped`, `suspended`, `failed`, `destroyed`, or one that
            passes (https://fly.io/docs/machines/machine-states/); new ones may appear.
        instance_id: Version of the config; changes with each update, not with stop and start.
        private_ip: IPv6 address in the organization's private network.
        config: As the API sent it, fit to be changed and given to `update_machine`; None when
            the machine's host does not answer.
        incomplete_config: What is known of the config in that case.
        host_status: `ok`, `unknown` or `unreachable`.
        cordoned: Taken out of the proxy's routing.
        events: Newest first, only the last few.
        nonce: Of the lease, in the answer to a create or update with `lease_ttl_s`.
    """

    id: str
    name: str = ""
    state: str = ""
    region: str = ""
    instance_id: str = ""
    version: str = ""
    private_ip: str = ""
    created_at: str = ""
    updated_at: str = ""
    image_ref: ImageRef = field(default_factory=ImageRef)
    config: dict[str, Any] | None = None
    incomplete_config: dict[str, Any] | None = None
    host_status: str = "ok"
    cordoned: bool = False
    events: list[MachineEvent] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    nonce: str = ""

    @property
    def metadata(self) -> dict[str, str]:
        """Metadata in the config; empty when the config is not known."""
        return (self.config or self.incomplete_config or {}).get("metadata") or {}

    @property
    def exit_event(self) -> ExitEvent | None:
        """How the main process ended last, as far as `events` reach."""
        return next((event.exit_event for event in self.events if event.exit_event), None)

    @property
    def newest_event_id(self) -> str | None:
        """For `wait(from_event_id=)`: what comes after this is new."""
        return (self.events[0].id or None) if self.events else None


class StartResponse(Struct, frozen=True, kw_only=True):
    """Answer to a start, which does not wait for the machine.

    Attributes:
        previous_state: State before the start.
        migrated: The machine moved to another host, `new_host`.
    """

    previous_state: str = ""
    migrated: bool = False
    new_host: str = ""
    status: str = ""
    message: str = ""


class ExecResponse(Struct, frozen=True, kw_only=True):
    """How a command ended.

    Attributes:
        exit_code: 128 + n when signal n ended it.
        exit_signal: That signal, or 0.
        stdout: Text; the API does not preserve bytes that are not UTF-8.
        stderr: The same.
    """

    exit_code: int = 0
    exit_signal: int = 0
    stdout: str = ""
    stderr: str = ""


class Lease(Struct, frozen=True, kw_only=True):
    """An exclusive lock on changes to a machine.

    Attributes:
        nonce: Proof of holding it, for `nonce=` of the calls that change the machine.
        expires_at: Unix seconds.
        owner: E-mail address or token id.
        version: The machine's `instance_id`.
    """

    nonce: str = ""
    expires_at: int = 0
    owner: str = ""
    description: str = ""
    version: str = ""


class MachineVersion(Struct, frozen=True, kw_only=True):
    """A config that a machine has or had; `version` is its `instance_id`."""

    version: str = ""
    user_config: dict[str, Any] | None = None


class Organization(Struct, frozen=True, kw_only=True):
    """The organization of an app."""

    name: str = ""
    slug: str = ""
    internal_numeric_id: int = 0


class App(Struct, frozen=True, kw_only=True):
    """An app; `status` is `pending` until it has its first machine."""

    id: str = ""
    name: str = ""
    internal_numeric_id: int = 0
    network: str = ""
    status: str = ""
    machine_count: int = 0
    volume_count: int = 0
    organization: Organization = field(default_factory=Organization)


class Volume(Struct, frozen=True, kw_only=True):
    """A volume.

    Attributes:
        state: `created` at rest, attached or not; `pending_destroy` and others on its way out.
        attached_machine_id: The machine that mounts it, or empty.
        zone: Hardware it lives on.
        snapshot_retention: Days.
        bytes_used: Bytes; `bytes_total` likewise.
    """

    id: str
    name: str = ""
    state: str = ""
    size_gb: int = 0
    region: str = ""
    zone: str = ""
    encrypted: bool = False
    attached_machine_id: str = ""
    created_at: str = ""
    fstype: str = ""
    snapshot_retention: int = 0
    auto_backup_enabled: bool = False
    bytes_used: int = 0
    bytes_total: int = 0
    host_status: str = ""


class IpAssignment(Struct, frozen=True, kw_only=True):
    """A public or private address of an app."""

    ip: str = ""
    region: str = ""
    service_name: str = ""
    shared: bool = False
    created_at: str = ""


class Region(Struct, frozen=True, kw_only=True):
    """A place where machines run; `code` is what `region=` takes."""

    code: str = ""
    name: str = ""
    latitude: float = 0.0
    longitude: float = 0.0
    gateway_available: bool = False
    requires_paid_plan: bool = False
    deprecated: bool = False
    geo_region: str = ""


class Regions(Struct, frozen=True, kw_only=True):
    """All regions; `nearest` is the code of the one nearest to the caller."""

    nearest: str = ""
    regions: list[Region] = field(default_factory=list)
