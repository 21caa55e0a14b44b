#!/usr/bin/env python3
"""Print pip constraints that pin every declared dependency to the lowest release it allows."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parent.parent / "pyproject.toml"
# What only shapes the code is pinned by nobody, so its newest release is used everywhere.
LEFT_OUT = {"lint"}
BOUND = re.compile(r"^([A-Za-z0-9._-]+)>=([0-9.]+)(?:;.*)?$")


def declared() -> list[str]:
    project = tomllib.loads(PROJECT.read_text())["project"]
    extras = project["optional-dependencies"]
    chosen = (extras[name] for name in extras if name not in LEFT_OUT)
    everything = sum(chosen, start=list(project["dependencies"]))
    return [line for line in everything if not line.startswith(project["name"])]


def pinned(requirement: str) -> str:
    found = BOUND.match(requirement)
    if found is None:
        raise SystemExit(f"{requirement!r} in pyproject.toml: expected NAME>=VERSION")
    return f"{found[1]}=={found[2]}"


if __name__ == "__main__":
    print("\n".join(pinned(requirement) for requirement in declared()))
