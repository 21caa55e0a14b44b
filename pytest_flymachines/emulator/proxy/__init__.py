"""The emulator's stand-in for Fly Proxy, on loopback.

Source: https://fly.io/docs/reference/fly-proxy/.
"""

from __future__ import annotations

from pytest_flymachines.emulator.proxy.directory import (
    AppRecord,
    Caller,
    Directory,
    MachineRecord,
    StartRefused,
)
from pytest_flymachines.emulator.proxy.forwards import Forwards
from pytest_flymachines.emulator.proxy.proxy import Proxy, start_proxy

__all__ = [
    "AppRecord",
    "Caller",
    "Directory",
    "Forwards",
    "MachineRecord",
    "Proxy",
    "StartRefused",
    "start_proxy",
]
