"""`config` of a machine, field by field, as superfly/fly-go and the OpenAPI document name it.

Decoding drops unknown fields and encoding leaves zero values out, as Go does with its structs.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct, field

from pytest_flymachines.emulator.service_config import (
    Check,
    Header,
    Part,
    Port,
    Service,
    TlsOptions,
)
from pytest_flymachines.emulator.wiretime import MAX_NS, Duration

__all__ = [
    "Check",
    "Container",
    "CreateRequest",
    "Dependency",
    "File",
    "Guest",
    "Healthcheck",
    "Init",
    "MachineConfig",
    "Mount",
    "Port",
    "Process",
    "Restart",
    "Service",
    "SharedVolume",
    "StopConfig",
    "TlsOptions",
    "decode_hook",
    "encode_hook",
]


class Init(Part):
    """`config.init`: argv is `exec`, or `entrypoint` and `cmd`, each else the image's."""

    exec: list[str] | None = None
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    tty: bool = False
    swap_size_mb: int | None = None
    kernel_args: list[str] | None = None


class Guest(Part):
    """`config.guest`: the size of the machine."""

    cpu_kind: str = ""
    cpus: int = 0
    memory_mb: int = 0
    max_memory_mb: int = 0
    gpus: int = 0
    gpu_kind: str = ""
    host_dedication_id: str = ""
    kernel_args: list[str] | None = None
    persist_rootfs: str = ""


class Mount(Part):
    """One of `config.mounts`; `volume` is the id of a volume."""

    volume: str = ""
    path: str = ""
    name: str = ""
    size_gb: int = 0
    encrypted: bool = False
    extend_threshold_percent: int = 0
    add_size_gb: int = 0
    size_gb_limit: int = 0


class File(Part):
    """One of `config.files`; `raw_value` is base64."""

    guest_path: str = ""
    raw_value: str | None = None
    secret_name: str | None = None
    image_config: str | None = None
    mode: int = 0


class Restart(Part):
    """`config.restart`; an empty policy means `on-failure`."""

    policy: str = ""
    max_retries: int = 0
    gpu_bid_price: float = 0


class StopConfig(Part):
    """`config.stop_config`."""

    timeout: Duration | None = None
    signal: str | None = None


class DnsOption(Part):
    """A resolver option."""

    name: str = ""
    value: str = ""


class DnsForwardRule(Part):
    """Names that are resolved elsewhere."""

    basename: str = ""
    addr: str = ""


class Dns(Part):
    """`config.dns`."""

    skip_registration: bool = False
    nameservers: list[str] | None = None
    searches: list[str] | None = None
    options: list[DnsOption] | None = None
    dns_forward_rules: list[DnsForwardRule] | None = None
    hostname: str = ""
    hostname_fqdn: str = ""


class EnvFrom(Part):
    """A variable whose value is a field of the machine."""

    env_var: str = ""
    field_ref: str = ""


class SecretRef(Part):
    """A variable whose value is an app secret."""

    env_var: str = ""
    name: str = ""


class Process(Part):
    """One of `config.processes`."""

    exec: list[str] | None = None
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    user: str = ""
    env: dict[str, str] | None = None
    env_from: list[EnvFrom] | None = None
    secrets: list[SecretRef] | None = None
    ignore_app_secrets: bool = False


class Dependency(Part):
    """What a container waits for: another one that is started, healthy or exited_successfully."""

    name: str = ""
    condition: str = ""


class HttpHealthcheck(Part):
    """A request that has to be answered with 2xx."""

    port: int = 0
    method: str = ""
    path: str = ""
    scheme: str = ""
    headers: list[Header] | None = None
    tls_skip_verify: bool | None = None
    tls_server_name: str = ""


class TcpHealthcheck(Part):
    """A port that has to accept connections."""

    port: int = 0


class ExecHealthcheck(Part):
    """A command that has to end with 0."""

    command: list[str] = field(default_factory=list)


class Healthcheck(Part):
    """A check of a container: one of `http`, `tcp`, `exec`; times in seconds."""

    name: str = ""
    kind: str = ""
    interval: int = 0
    timeout: int = 0
    grace_period: int = 0
    success_threshold: int = 0
    failure_threshold: int = 0
    unhealthy: str = ""
    http: HttpHealthcheck | None = None
    tcp: TcpHealthcheck | None = None
    exec: ExecHealthcheck | None = None


class ContainerMount(Part):
    """A volume of the machine in a container, by name."""

    name: str = ""
    path: str = ""


class Container(Part):
    """One of `config.containers`."""

    name: str = ""
    image: str = ""
    exec: list[str] | None = None
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    user: str = ""
    env: dict[str, str] | None = None
    env_from: list[EnvFrom] | None = None
    secrets: list[SecretRef] | None = None
    files: list[File] | None = None
    restart: Restart | None = None
    stop: StopConfig | None = None
    depends_on: list[Dependency] | None = None
    healthchecks: list[Healthcheck] | None = None
    mounts: list[ContainerMount] | None = None


class TempDir(Part):
    """A directory that lasts as long as a run of the machine; `storage_type` is disk or memory."""

    storage_type: str = ""
    size_mb: int = 0


class SharedVolume(Part):
    """One of `config.volumes`, for the mounts of containers."""

    name: str = ""
    temp_dir: TempDir | None = None
    image: str = ""


class Metrics(Part):
    """`config.metrics`."""

    port: int = 0
    path: str = ""
    https: bool = False


class Static(Part):
    """One of `config.statics`."""

    guest_path: str = ""
    url_prefix: str = ""
    tigris_bucket: str = ""
    index_document: str = ""


class Rootfs(Part):
    """`config.rootfs`; `persist` is never, always or restart."""

    persist: str = ""
    size_gb: int = 0


class CacheDrive(Part):
    """`config.cache_drive`."""

    size_mb: int = 0


class Spot(Part):
    """`config.spot`."""

    max_price_fraction: float = 0


class MachineConfig(Part):
    """The whole `config`."""

    env: dict[str, str] | None = None
    init: Init = field(default_factory=Init)
    guest: Guest | None = None
    size: str = ""
    metadata: dict[str, str] | None = None
    mounts: list[Mount] | None = None
    services: list[Service] | None = None
    checks: dict[str, Check] | None = None
    metrics: Metrics | None = None
    statics: list[Static] | None = None
    files: list[File] | None = None
    schedule: str = ""
    image: str = ""
    auto_destroy: bool = False
    restart: Restart | None = None
    stop_config: StopConfig | None = None
    dns: Dns = field(default_factory=Dns)
    processes: list[Process] | None = None
    standbys: list[str] | None = None
    containers: list[Container] | None = None
    volumes: list[SharedVolume] | None = None
    rootfs: Rootfs | None = None
    cache_drive: CacheDrive | None = None
    spot: Spot | None = None
    disable_machine_autostart: bool = False


class CreateRequest(Struct, kw_only=True):
    """Body of create and update."""

    config: MachineConfig | None = None
    name: str = ""
    region: str = ""
    skip_launch: bool = False
    skip_service_registration: bool = False
    skip_secrets: bool = False
    lsvd: bool = False
    min_secrets_version: int | None = None
    lease_ttl: int = 0
    current_version: str = ""


def decode_hook(kind: type, value: object) -> object:
    """Decode a `Duration`: Go's text, or a number of nanoseconds."""
    if kind is Duration:
        if isinstance(value, str):
            return Duration.parse(value)
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_NS:
            return Duration(round(value))
        raise TypeError("invalid duration")
    raise NotImplementedError(kind)


def encode_hook(value: object) -> object:
    """Encode a `Duration` as Go's text."""
    if isinstance(value, Duration):
        return str(value)
    raise NotImplementedError(type(value))


def encode(value: object) -> bytes:
    """JSON of any answer or record."""
    return msgspec.json.encode(value, enc_hook=encode_hook)
