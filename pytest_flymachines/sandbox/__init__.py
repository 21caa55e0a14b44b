"""The handle of a sandbox, and the ways into its machine.

Each name is loaded when it is first used, so that importing one part costs only that part.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_flymachines.sandbox._handle import Sandbox
    from pytest_flymachines.sandbox.attachment import Attachment
    from pytest_flymachines.sandbox.channel import FileInfo
    from pytest_flymachines.sandbox.factory import SandboxFactory
    from pytest_flymachines.sandbox.machine import Status
    from pytest_flymachines.sandbox.path import SandboxPath
    from pytest_flymachines.sandbox.ports import Forward
    from pytest_flymachines.sandbox.processes import ProcessInput, RemoteProcess
    from pytest_flymachines.sandbox.result import ExecResult
    from pytest_flymachines.sandbox.screen import Screen
    from pytest_flymachines.sandbox.terminal import Terminal

_HOMES = {
    "Attachment": "attachment",
    "ExecResult": "result",
    "FileInfo": "channel",
    "Forward": "ports",
    "ProcessInput": "processes",
    "RemoteProcess": "processes",
    "Sandbox": "_handle",
    "SandboxFactory": "factory",
    "SandboxPath": "path",
    "Screen": "screen",
    "Status": "machine",
    "Terminal": "terminal",
}

__all__ = [
    "Attachment",
    "ExecResult",
    "FileInfo",
    "Forward",
    "ProcessInput",
    "RemoteProcess",
    "Sandbox",
    "SandboxFactory",
    "SandboxPath",
    "Screen",
    "Status",
    "Terminal",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
