"""All routes of the API port."""

from __future__ import annotations

from pytest_flymachines.emulator import (
    actions,
    app_secrets,
    apps,
    exec,  # noqa: A004 - the name of the operation
    graphql,
    guest,
    history,
    ips,
    leases,
    machines,
    metadata,
    orgs,
    placement,
    prometheus,
    snapshots,
    tokens,
    uiex,
    unsupported,
    volumes,
    wait,
)
from pytest_flymachines.emulator.emulator import Emulator
from pytest_flymachines.emulator.front import Front

__all__ = ["api"]


MODULES = (
    *(apps, machines, actions, wait, exec, metadata, leases, history, guest, volumes, snapshots),
    *(app_secrets, ips, orgs, placement, tokens, unsupported, graphql, uiex, prometheus),
)


def api(emulator: Emulator) -> Front:
    """The ASGI application that answers as Fly's Machines API does."""
    return Front(emulator, [route for module in MODULES for route in module.routes])
