"""What containers must be; refusals are 400 in the form of those that flaps is known for."""

from __future__ import annotations

import re

from pytest_flymachines.emulator.config import Container, Healthcheck, MachineConfig
from pytest_flymachines.emulator.fields import (
    absolute,
    environment,
    files,
    image,
    invalid,
    name,
    one_of,
    port,
    program,
)
from pytest_flymachines.emulator.signals import check_stop

__all__ = ["validate_containers"]

MAX_CONTAINERS = 10
NAME = re.compile("[a-z0-9]([a-z0-9_.-]{0,61}[a-z0-9])?")
CONDITIONS = ("exited_successfully", "healthy", "started")
POLICIES = ("", "no", "always", "on-failure")


def validate_containers(config: MachineConfig) -> None:
    """Refuse containers that pilot could not run.

    Raises:
        Problem: 400.
    """
    containers = config.containers or []
    if len(containers) > MAX_CONTAINERS:
        raise invalid("containers", f"cannot exceed {MAX_CONTAINERS} containers")
    if containers and config.processes:
        raise invalid("processes", "cannot be used together with containers")
    names = [container.name for container in containers]
    volumes = _volumes(config)
    for index, container in enumerate(containers):
        at = f"containers[{index}]"
        if not NAME.fullmatch(container.name):
            raise invalid(f"{at}.name", "must be lowercase letters, digits, dashes, at most 63")
        if names.count(container.name) > 1:
            raise invalid(f"{at}.name", f"{container.name} is not unique")
        if not container.image:
            raise invalid(f"{at}.image", "must not be empty")
        _container(container, at)
        _dependencies(container, at, names)
        for number, mount in enumerate(container.mounts or ()):
            if mount.name not in volumes:
                raise invalid(f"{at}.mounts[{number}].name", f"no volume {mount.name}")
            absolute(f"{at}.mounts[{number}].path", mount.path)
    _circles({container.name: container for container in containers})


def _volumes(config: MachineConfig) -> set[str]:
    names = {mount.name for mount in config.mounts or () if mount.name}
    for index, volume in enumerate(config.volumes or ()):
        if not NAME.fullmatch(volume.name):
            raise invalid(f"volumes[{index}].name", "must be lowercase letters, digits, dashes")
        if volume.image:
            raise invalid(f"volumes[{index}].image", "is not supported by this emulator")
        kind = volume.temp_dir.storage_type if volume.temp_dir else ""
        one_of(f"volumes[{index}].temp_dir.storage_type", kind, ("", "disk", "memory"))
        names.add(volume.name)
    return names


def _container(container: Container, at: str) -> None:
    files(f"{at}.files", container.files or [])
    one_of(f"{at}.restart.policy", container.restart.policy if container.restart else "", POLICIES)
    check_stop(f"{at}.stop", container.stop)
    program(at, container)
    environment(f"{at}.env", container.env)
    image(f"{at}.image", container.image)
    name(f"config.{at}.user", container.user)
    for index, check in enumerate(container.healthchecks or ()):
        _healthcheck(check, f"{at}.healthchecks[{index}]")


def _healthcheck(check: Healthcheck, at: str) -> None:
    if sum(kind is not None for kind in (check.http, check.tcp, check.exec)) != 1:
        raise invalid(at, "must have one of http, tcp, exec")
    if check.http:
        port(f"{at}.http.port", check.http.port)
        one_of(f"{at}.http.scheme", check.http.scheme, ("", "http", "https"))
    if check.tcp:
        port(f"{at}.tcp.port", check.tcp.port)
    if check.exec and not check.exec.command:
        raise invalid(f"{at}.exec.command", "must not be empty")
    one_of(f"{at}.kind", check.kind, ("", "readiness", "liveness"))
    one_of(f"{at}.unhealthy", check.unhealthy, ("", "stop"))
    times = ("interval", "timeout", "grace_period", "success_threshold", "failure_threshold")
    for field in times:
        if getattr(check, field) < 0:
            raise invalid(f"{at}.{field}", "must not be negative")


def _dependencies(container: Container, at: str, names: list[str]) -> None:
    for index, dependency in enumerate(container.depends_on or ()):
        where = f"{at}.depends_on[{index}]"
        if dependency.name not in names:
            raise invalid(f"{where}.name", f"no container {dependency.name}")
        one_of(f"{where}.condition", dependency.condition, CONDITIONS)


def _circles(containers: dict[str, Container]) -> None:
    """Refuse containers that wait for each other, or for themselves."""

    def visit(one: str, path: tuple[str, ...]) -> None:
        if one in path:
            raise invalid("containers", f"depends_on is circular: {' -> '.join((*path, one))}")
        for dependency in {other.name for other in containers[one].depends_on or ()}:
            visit(dependency, (*path, one))

    for one in containers:
        visit(one, ())
