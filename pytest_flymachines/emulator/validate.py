"""What a config must be: sizes, services, files, mounts; refusals are 400 as flaps words them.

The texts about guests were seen on the live API; the others follow their form.
"""

from __future__ import annotations

import base64
import binascii
import signal
from collections.abc import Iterable

from pytest_flymachines.emulator.answers import Problem
from pytest_flymachines.emulator.config import Check, File, Guest, MachineConfig, Service

__all__ = [
    "CPUS",
    "PRESETS",
    "SIGNALS",
    "STOP_SIGNALS",
    "check_guest",
    "normalize",
    "signal_name",
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

STOP_SIGNALS = ("SIGHUP", "SIGINT", "SIGQUIT", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGTERM")
SIGNALS = (
    *STOP_SIGNALS,
    *("SIGABRT", "SIGALRM", "SIGFPE", "SIGILL", "SIGPIPE", "SIGSEGV", "SIGTRAP"),
)
POLICIES = ("", "no", "always", "on-failure", "spot-price")
SCHEDULES = ("", "hourly", "daily", "weekly", "monthly")
PERSIST = ("", "never", "always", "restart", "none")
HANDLERS = ("http", "tls", "pg_tls", "proxy_proto", "edge_http")
MAX_FILES = 1000


def validate(config: MachineConfig) -> None:
    """Refuse a config that Fly would refuse.

    Raises:
        Problem: 400.
    """
    if not config.image:
        raise _invalid("image", "must not be empty")
    if config.guest and config.size:
        raise _invalid("size", "cannot be used together with guest")
    if config.size and config.size not in PRESETS:
        raise _invalid("size", f"must be one of {_go_list(PRESETS)}")
    if config.guest:
        check_guest(config.guest)
    for index, service in enumerate(config.services or ()):
        _service(service, f"services[{index}]")
    for name, check in (config.checks or {}).items():
        _check(check, f"checks.{name}")
        if not check.port:
            raise _invalid(f"checks.{name}.port", "must be set")
    for index, static in enumerate(config.statics or ()):
        for field in ("guest_path", "url_prefix"):
            if not getattr(static, field):
                raise _invalid(f"statics[{index}].{field}", "must be set")
    _files(config.files or [])
    _mounts(config)
    _one_of("restart.policy", config.restart.policy if config.restart else "", POLICIES)
    _one_of("schedule", config.schedule, SCHEDULES)
    _one_of("rootfs.persist", config.rootfs.persist if config.rootfs else "", PERSIST)
    if config.stop_config and config.stop_config.signal:
        _one_of("stop_config.signal", config.stop_config.signal, STOP_SIGNALS)
    if config.containers:
        raise _invalid("containers", "containers are not enabled for this organization")
    if len(config.processes or ()) > 1:
        raise _invalid("processes", "only one process is supported by this emulator")
    if config.guest and (config.guest.gpus or config.guest.gpu_kind):
        raise Problem(422, "could not find a candidate host", code="insufficient_capacity")


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


def signal_name(given: str | int, allowed: tuple[str, ...], where: str) -> str:
    """A signal by name or number, with or without `SIG`.

    Raises:
        Problem: 400 for one that is not allowed here.
    """
    try:
        name = signal.Signals(given).name if isinstance(given, int) else given.upper()
    except ValueError:
        name = str(given)
    name = name if name.startswith("SIG") or isinstance(given, int) else f"SIG{name}"
    if name not in allowed:
        raise Problem(
            400,
            f"invalid_argument: invalid {where}.Signal: value must be in list {_go_list(allowed)}",
        )
    return name


def check_guest(guest: Guest) -> None:
    """Refuse a size that Fly does not offer.

    Raises:
        Problem: 400.
    """
    if guest.cpu_kind not in CPUS:
        raise _invalid("guest.cpu_kind", f"must be one of {_go_list(CPUS)}")
    if guest.cpus not in CPUS[guest.cpu_kind]:
        raise _invalid("guest.cpus", f"must be one of {_go_list(CPUS[guest.cpu_kind])}")
    least, most = (bound * guest.cpus for bound in MEMORY_PER_CPU[guest.cpu_kind])
    if guest.memory_mb < least:
        raise _invalid("guest.memory_mb", f"minimum required {least} MiB")
    if guest.memory_mb > most:
        raise _invalid("guest.memory_mb", f"cannot exceed {most} MiB")
    if guest.memory_mb % MEMORY_STEP:
        raise _invalid("guest.memory_mb", f"must be a multiple of {MEMORY_STEP} MiB")


def _service(service: Service, at: str) -> None:
    _one_of(f"{at}.protocol", service.protocol, ("", "tcp", "udp"))
    _port(f"{at}.internal_port", service.internal_port)
    if isinstance(service.autostop, str):
        _one_of(f"{at}.autostop", service.autostop, ("off", "stop", "suspend"))
    for index, port in enumerate(service.ports or ()):
        where = f"{at}.ports[{index}]"
        if port.port is not None:
            _port(f"{where}.port", port.port)
        elif port.start_port is not None and port.end_port is not None:
            _port(f"{where}.start_port", port.start_port)
            _port(f"{where}.end_port", port.end_port)
        else:
            raise _invalid(f"{where}.port", "must be set")
        for handler in port.handlers or ():
            _one_of(f"{where}.handlers", handler, HANDLERS)
    if service.concurrency and service.concurrency.type:
        _one_of(f"{at}.concurrency.type", service.concurrency.type, ("connections", "requests"))
    for index, check in enumerate(service.checks or ()):
        _check(check, f"{at}.checks[{index}]")


def _check(check: Check, at: str) -> None:
    _one_of(f"{at}.type", check.type or "", ("tcp", "http"))
    if check.port is not None:
        _port(f"{at}.port", check.port)
    if check.kind:
        _one_of(f"{at}.kind", check.kind, ("informational", "readiness"))


def _files(files: list[File]) -> None:
    if len(files) > MAX_FILES:
        raise _invalid("files", f"cannot exceed {MAX_FILES} files")
    for index, file in enumerate(files):
        at = f"files[{index}]"
        if not file.guest_path.startswith("/"):
            raise _invalid(f"{at}.guest_path", "must be an absolute path")
        if file.image_config:
            raise _invalid(f"{at}.image_config", "is not supported by this emulator")
        if file.raw_value and file.secret_name:
            raise _invalid(at, "only one of raw_value and secret_name can be set")
        try:
            base64.b64decode(file.raw_value or "", validate=True)
        except (binascii.Error, ValueError):
            raise _invalid(f"{at}.raw_value", "must be base64") from None


def _mounts(config: MachineConfig) -> None:
    mounts = config.mounts or []
    if len(mounts) > 1:
        raise _invalid("mounts", "a machine can have at most one mount")
    for mount in mounts:
        if not mount.path.startswith("/") or mount.path == "/":
            raise _invalid("mounts[0].path", "must be an absolute path")


def _port(where: str, port: int) -> None:
    if not 1 <= port <= 65535:
        raise _invalid(where, "must be between 1 and 65535")


def _one_of(where: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise _invalid(where, f"must be one of {_go_list(name for name in allowed if name)}")


def _go_list(values: Iterable[object]) -> str:
    return "[" + " ".join(str(value) for value in values) + "]"


def _invalid(field: str, what: str) -> Problem:
    return Problem(400, f"invalid config.{field}, {what}")
