"""What a config must be: sizes, services, files, mounts; refusals are 400 as flaps words them.

The texts about guests were seen on the live API; the others follow their form.
"""

from __future__ import annotations

import re

from pytest_flymachines.emulator.answers import Problem
from pytest_flymachines.emulator.config import Check, Guest, MachineConfig, Service, Static
from pytest_flymachines.emulator.containers.validate import validate_containers
from pytest_flymachines.emulator.fields import (
    absolute,
    environment,
    files,
    go_list,
    image,
    invalid,
    name,
    one_of,
    port,
    program,
    words,
)
from pytest_flymachines.emulator.signals import check_stop

__all__ = [
    "CPUS",
    "PRESETS",
    "check_guest",
    "normalize",
    "validate",
]

CPUS = {
    "shared": (1, 2, 4, 6, 8),
    "performance": (1, 2, 4, 6, 8, 10, 12, 14, 16, 32, 64, 128),
}
#: Least and most memory per cpu, in MiB. Source: `machine_types.go` in superfly/fly-go.
MEMORY_PER_CPU = {"shared": (256, 2048), "performance": (2048, 8192)}
MEMORY_STEP = 256

PRESETS = {
    **{f"shared-cpu-{n}x": ("shared", n, n * 256) for n in CPUS["shared"]},
    **{f"performance-{n}x": ("performance", n, n * 2048) for n in CPUS["performance"]},
}

POLICIES = ("", "no", "always", "on-failure", "spot-price")
SCHEDULES = ("", "hourly", "daily", "weekly", "monthly")
PERSIST = ("", "never", "always", "restart", "none")
HANDLERS = ("http", "tls", "pg_tls", "proxy_proto", "edge_http")
MAX_PROCESSES = 10
MAX_STATICS = 10
MAX_SWAP_MB = 65536
MAX_ROOTFS_GB = 500
PATH = re.compile("/[!-~]*")
HOST_NAME = re.compile("[A-Za-z0-9]([A-Za-z0-9.-]{0,62}[A-Za-z0-9])?")


def validate(config: MachineConfig) -> None:
    """Refuse a config that Fly would refuse.

    Raises:
        Problem: 400.
    """
    if not config.image and not config.containers:
        raise invalid("image", "must not be empty")
    if config.guest and config.size:
        raise invalid("size", "cannot be used together with guest")
    if config.size and config.size not in PRESETS:
        raise invalid("size", f"must be one of {go_list(PRESETS)}")
    if config.guest:
        check_guest(config.guest)
    for index, service in enumerate(config.services or ()):
        _service(service, f"services[{index}]")
    for key, check in (config.checks or {}).items():
        _check(check, f"checks.{key}")
        if not check.port:
            raise invalid(f"checks.{key}.port", "must be set")
    if config.metrics:
        port("metrics.port", config.metrics.port)
        if config.metrics.path and not PATH.fullmatch(config.metrics.path):
            raise invalid("metrics.path", "must begin with / and have no spaces")
    _statics(config.statics or [])
    _texts(config)
    files("files", config.files or [])
    _mounts(config)
    one_of("restart.policy", config.restart.policy if config.restart else "", POLICIES)
    one_of("schedule", config.schedule, SCHEDULES)
    one_of("rootfs.persist", config.rootfs.persist if config.rootfs else "", PERSIST)
    if config.rootfs and not 0 <= config.rootfs.size_gb <= MAX_ROOTFS_GB:
        raise invalid("rootfs.size_gb", f"must be between 0 and {MAX_ROOTFS_GB}")
    if not 0 <= (config.init.swap_size_mb or 0) <= MAX_SWAP_MB:
        raise invalid("init.swap_size_mb", f"must be between 0 and {MAX_SWAP_MB}")
    if config.restart and config.restart.max_retries < 0:
        raise invalid("restart.max_retries", "must not be negative")
    check_stop("stop_config", config.stop_config)
    if len(config.processes or ()) > MAX_PROCESSES:
        raise invalid("processes", f"cannot exceed {MAX_PROCESSES} processes")
    validate_containers(config)
    if config.guest and (config.guest.gpus or config.guest.gpu_kind):
        raise Problem(422, "could not find a candidate host", code="insufficient_capacity")


def _texts(config: MachineConfig) -> None:
    """Refuse names that are too long, and what no program could be started with."""
    image("image", config.image)
    environment("env", config.env)
    for key in config.metadata or {}:
        name("config.metadata", key)
    for key in config.checks or {}:
        name("config.checks", key)
    if config.dns.hostname and not HOST_NAME.fullmatch(config.dns.hostname):
        raise invalid("dns.hostname", "must be letters, digits, dashes and dots, at most 64")
    program("init", config.init)
    for index, process in enumerate(config.processes or ()):
        at = f"processes[{index}]"
        program(at, process)
        name(f"config.{at}.user", process.user)
        environment(f"{at}.env", process.env)


def normalize(config: MachineConfig) -> None:
    """Fill in the defaults that reads show."""
    if config.guest is None:
        kind, cpus, memory_mb = PRESETS[config.size or "shared-cpu-1x"]
        config.guest = Guest(cpu_kind=kind, cpus=cpus, memory_mb=memory_mb)
    for service in config.services or ():
        service.protocol = service.protocol or "tcp"
        # Source: MachineAutostop in superfly/fly-go encodes off and stop as booleans.
        if service.autostop is not None:
            service.autostop = {"off": False, "stop": True}.get(
                str(service.autostop), service.autostop
            )
        if not isinstance(service.force_instance_key, str):
            service.force_instance_key = None


def check_guest(guest: Guest) -> None:
    """Refuse a size that Fly does not offer.

    Raises:
        Problem: 400.
    """
    if guest.cpu_kind not in CPUS:
        raise invalid("guest.cpu_kind", f"must be one of {go_list(CPUS)}")
    if guest.cpus not in CPUS[guest.cpu_kind]:
        raise invalid("guest.cpus", f"must be one of {go_list(CPUS[guest.cpu_kind])}")
    least, most = (bound * guest.cpus for bound in MEMORY_PER_CPU[guest.cpu_kind])
    if guest.memory_mb < least:
        raise invalid("guest.memory_mb", f"minimum required {least} MiB")
    if guest.memory_mb > most:
        raise invalid("guest.memory_mb", f"cannot exceed {most} MiB")
    if guest.memory_mb % MEMORY_STEP:
        raise invalid("guest.memory_mb", f"must be a multiple of {MEMORY_STEP} MiB")


def _service(service: Service, at: str) -> None:
    one_of(f"{at}.protocol", service.protocol, ("", "tcp", "udp"))
    port(f"{at}.internal_port", service.internal_port)
    if isinstance(service.autostop, str):
        one_of(f"{at}.autostop", service.autostop, ("off", "stop", "suspend"))
    for index, public in enumerate(service.ports or ()):
        where = f"{at}.ports[{index}]"
        if public.port is not None:
            port(f"{where}.port", public.port)
        elif public.start_port is not None and public.end_port is not None:
            port(f"{where}.start_port", public.start_port)
            port(f"{where}.end_port", public.end_port)
        else:
            raise invalid(f"{where}.port", "must be set")
        for handler in public.handlers or ():
            one_of(f"{where}.handlers", handler, HANDLERS)
    if service.concurrency and service.concurrency.type:
        one_of(f"{at}.concurrency.type", service.concurrency.type, ("connections", "requests"))
    for index, check in enumerate(service.checks or ()):
        _check(check, f"{at}.checks[{index}]")


def _check(check: Check, at: str) -> None:
    one_of(f"{at}.type", check.type or "", ("tcp", "http"))
    if check.port is not None:
        port(f"{at}.port", check.port)
    if check.kind:
        one_of(f"{at}.kind", check.kind, ("informational", "readiness"))


def _statics(statics: list[Static]) -> None:
    """Source: https://fly.io/docs/reference/configuration/#the-statics-sections."""
    if len(statics) > MAX_STATICS:
        raise invalid("statics", f"cannot exceed {MAX_STATICS} statics")
    prefixes = [static.url_prefix.strip("/") for static in statics]
    for index, static in enumerate(statics):
        at = f"statics[{index}]"
        for field in ("guest_path", "url_prefix"):
            if not getattr(static, field):
                raise invalid(f"{at}.{field}", "must be set")
        words(f"{at}.guest_path", [static.guest_path])
        if not static.guest_path.startswith("/") or ".." in static.guest_path.split("/"):
            raise invalid(f"{at}.guest_path", "must be an absolute path without ..")
        if prefixes.index(prefixes[index]) != index:
            raise invalid(f"{at}.url_prefix", f"{static.url_prefix} is not unique")


def _mounts(config: MachineConfig) -> None:
    mounts = config.mounts or []
    if len(mounts) > 1:
        raise invalid("mounts", "a machine can have at most one mount")
    for mount in mounts:
        absolute("mounts[0].path", mount.path)
