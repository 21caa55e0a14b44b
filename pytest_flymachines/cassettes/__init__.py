"""Cassettes: what a run asked of machines and was answered, replayed without any."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_flymachines.cassettes.frames import FrameSocket
    from pytest_flymachines.cassettes.keys import CassetteKey
    from pytest_flymachines.cassettes.misses import CassetteMissing
    from pytest_flymachines.cassettes.recorder import Mode, Recorder
    from pytest_flymachines.cassettes.scopes import Scope
    from pytest_flymachines.cassettes.scrub import Scrubber

__all__ = [
    "CassetteKey",
    "CassetteMissing",
    "FrameSocket",
    "Mode",
    "Recorder",
    "Scope",
    "Scrubber",
]

_HOMES = {
    "CassetteKey": "keys",
    "CassetteMissing": "misses",
    "FrameSocket": "frames",
    "Mode": "recorder",
    "Recorder": "recorder",
    "Scope": "scopes",
    "Scrubber": "scrub",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
