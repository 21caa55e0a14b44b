"""A client for Fly.io's Machines API; usable alone.

with MachinesClient(os.environ["FLY_API_TOKEN"]) as client:
    machine = client.create_machine("my-app", {"image": "debian:12"}, region="ord")
    client.wait("my-app", machine.id, "started", version=machine.instance_id)
"""

from pytest_flymachines._http import PoolTransport
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
