"""Real Linux sandboxes on Fly.io Machines for pytest.

Importing this package costs next to nothing: each name is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_flymachines.api import MachinesClient
    from pytest_flymachines.errors import (
        AgentUnavailable,
        ApiError,
        ApiUnreachable,
        CapacityError,
        CassetteError,
        CassetteMiss,
        CommandFailed,
        CommandTimeout,
        Conflict,
        ExpectTimeout,
        FlyMachinesError,
        MachineGone,
        MachineStartFailed,
        NotFound,
        RateLimited,
        SandboxFileError,
        SandboxFileExists,
        SandboxFileNotFound,
        SandboxIsADirectory,
        SandboxNotADirectory,
        SandboxPermissionDenied,
        SettingsError,
        Unauthorized,
        WaitTimeout,
    )
    from pytest_flymachines.sandbox import (
        ExecResult,
        FileInfo,
        Forward,
        ProcessInput,
        RemoteProcess,
        Sandbox,
        SandboxFactory,
        SandboxPath,
        Screen,
        Status,
        Terminal,
    )
    from pytest_flymachines.spec import SandboxSpec

__version__ = "0.1.0"

__all__ = [
    "AgentUnavailable",
    "ApiError",
    "ApiUnreachable",
    "CapacityError",
    "CassetteError",
    "CassetteMiss",
    "CommandFailed",
    "CommandTimeout",
    "Conflict",
    "ExecResult",
    "ExpectTimeout",
    "FileInfo",
    "FlyMachinesError",
    "Forward",
    "MachineGone",
    "MachineStartFailed",
    "MachinesClient",
    "NotFound",
    "ProcessInput",
    "RateLimited",
    "RemoteProcess",
    "Sandbox",
    "SandboxFactory",
    "SandboxFileError",
    "SandboxFileExists",
    "SandboxFileNotFound",
    "SandboxIsADirectory",
    "SandboxNotADirectory",
    "SandboxPath",
    "SandboxPermissionDenied",
    "SandboxSpec",
    "Screen",
    "SettingsError",
    "Status",
    "Terminal",
    "Unauthorized",
    "WaitTimeout",
]

_SANDBOX = {
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
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "MachinesClient":
        home = "api"
    elif name == "SandboxSpec":
        home = "spec"
    else:
        home = "sandbox" if name in _SANDBOX else "errors"
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
