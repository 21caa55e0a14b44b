"""`config.services` and checks of a machine, field by field; see `config`."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, Struct, UnsetType

from pytest_flymachines.emulator.wiretime import Duration

__all__ = [
    "Check",
    "Header",
    "HttpOptions",
    "Part",
    "Port",
    "ReplayCacheRule",
    "Service",
    "TlsOptions",
]


class Part(Struct, kw_only=True, omit_defaults=True):
    """Base of every part of a config."""


class Header(Part):
    """One header of a check's request."""

    name: str = ""
    values: list[str] = []


class Check(Part):
    """A check of `config.checks`, and of a service (which has no `kind`)."""

    type: str | None = None
    port: int | None = None
    kind: str | None = None
    interval: Duration | None = None
    timeout: Duration | None = None
    grace_period: Duration | None = None
    method: str | None = None
    path: str | None = None
    protocol: str | None = None
    tls_skip_verify: bool | None = None
    tls_server_name: str | None = None
    headers: list[Header] | None = None


class TlsOptions(Part):
    """How a port speaks TLS."""

    alpn: list[str] | None = None
    versions: list[str] | None = None
    default_self_signed: bool | None = None


class ResponseOptions(Part):
    """What the proxy does to headers of responses; a header is a text, a list or false."""

    headers: dict[str, Any] | None = None
    pristine: bool = False


class ReplayCacheRule(Part):
    """When the proxy remembers a `fly-replay`: for requests with this cookie or header."""

    path_prefix: str = ""
    ttl_seconds: int = 0
    type: str = ""
    name: str = ""
    allow_bypass: bool = False


class HttpOptions(Part):
    """How a port speaks HTTP; times in seconds."""

    compress: bool | None = None
    h2_backend: bool | None = None
    idle_timeout: int | float | None = None
    headers_read_timeout: int | float | None = None
    response: ResponseOptions | None = None
    replay_cache: list[ReplayCacheRule] | None = None


class ProxyProtoOptions(Part):
    """Which version of the PROXY protocol."""

    version: str = ""


class Port(Part):
    """A public port of a service."""

    port: int | None = None
    start_port: int | None = None
    end_port: int | None = None
    handlers: list[str] | None = None
    force_https: bool = False
    tls_options: TlsOptions | None = None
    http_options: HttpOptions | None = None
    proxy_proto_options: ProxyProtoOptions | None = None


class Concurrency(Part):
    """When the proxy stops sending work to a machine."""

    type: str = ""
    soft_limit: int = 0
    hard_limit: int = 0


class Service(Part):
    """One of `config.services`: what the proxy routes to the machine."""

    protocol: str = ""
    internal_port: int = 0
    autostop: bool | str | None = None
    autostart: bool | None = None
    min_machines_running: int | None = None
    ports: list[Port] | None = None
    checks: list[Check] | None = None
    concurrency: Concurrency | None = None
    force_instance_key: str | UnsetType | None = UNSET
    force_instance_description: str | None = None
