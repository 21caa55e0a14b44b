"""All routes of the API port."""

from __future__ import annotations

from pytest_flymachines.emulator import (
    actions,
    apps,
    exec,  # noqa: A004 - the name of the operation
    leases,
    machines,
    metadata,
    volumes,
    wait,
)
from pytest_flymachines.emulator.emulator import Emulator
from pytest_flymachines.emulator.front import Front

__all__ = ["api"]


def api(emulator: Emulator) -> Front:
    """The ASGI application that answers as Fly's Machines API does."""
    modules = (apps, machines, actions, wait, exec, metadata, leases, volumes)
    return Front(emulator, [route for module in modules for route in module.routes])
