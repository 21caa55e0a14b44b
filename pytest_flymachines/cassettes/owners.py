"""The keys of tests and fixtures, as pytest has them.

This module is light: a run that only collects loads it, too.
"""

from __future__ import annotations

from typing import Any

import pytest

from pytest_flymachines.cassettes.keys import CassetteKey, param_text

__all__ = ["fixture_base", "fixture_key", "test_key"]


def test_key(item: pytest.Item) -> CassetteKey:
    """The key of a test; xdist's groups, which it writes into node ids, are not part of it."""
    plain = f"{item.parent.nodeid}::{item.name}" if item.parent is not None else item.nodeid
    return CassetteKey.test(plain if item.nodeid.startswith(plain) else item.nodeid)


def fixture_key(fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> CassetteKey:
    """The key of a wider fixture: by scope, what it is set up for, name and parameter."""
    node = "" if fixturedef.scope == "session" else request.node.nodeid
    base = fixture_base(fixturedef)
    param = ""
    if hasattr(request, "param"):
        param = param_text(request.param, getattr(request, "param_index", 0))
    return CassetteKey.fixture(
        fixturedef.scope, fixturedef.argname, node=node, base=base, param=param
    )


def fixture_base(fixturedef: pytest.FixtureDef[Any]) -> str:
    """Where a fixture is defined: a node, or a plugin; empty for the rootdir's conftest.py."""
    if fixturedef.baseid:
        return fixturedef.baseid
    module = getattr(fixturedef.func, "__module__", "") or ""
    return "" if module.rpartition(".")[2] == "conftest" else module
