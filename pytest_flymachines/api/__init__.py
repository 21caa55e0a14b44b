"""A client for Fly.io's Machines API; usable alone.

with MachinesClient(os.environ["FLY_API_TOKEN"]) as client:
    machine = client.create_machine("my-app", {"image": "debian:12"}, region="ord")
    client.wait("my-app", machine.id, "started", version=machine.instance_id)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_flymachines.api.client import MachinesClient
from pytest_flymachines.api.models import (
    App,
    Check,
    ExecResponse,
    ExitEvent,
    ImageRef,
    IpAssignment,
    Lease,
    Machine,
    MachineEvent,
    MachineVersion,
    Organization,
    Region,
    Regions,
    StartResponse,
    Volume,
)
from pytest_flymachines.api.stack import build_transport
from pytest_flymachines.api.waiting import StateMissed

if TYPE_CHECKING:
    from pytest_flymachines._http import PoolTransport

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
    "MachinesClient",
    "Organization",
    "PoolTransport",
    "Region",
    "Regions",
    "StartResponse",
    "StateMissed",
    "Volume",
    "build_transport",
]


def __getattr__(name: str) -> Any:
    if name != "PoolTransport":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pytest_flymachines._http import PoolTransport

    return PoolTransport
