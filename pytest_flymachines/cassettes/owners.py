"""The keys of tests and fixtures, as pytest has them.

This module is light: a run that only collects loads it, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from pytest_flymachines.cassettes.keys import CassetteKey
from pytest_flymachines.cassettes.parameters import param_text

__all__ = ["fixture_base", "fixture_keys", "repeated_key", "test_key"]

# how pytest-repeat numbers tests: `test_x[1-3]`, `test_x[param-1-3]`
_REPETITION = "__pytest_repeat_step_number"
_REPEATED = re.compile(r"(?:\[|(?P<others>-))\d+-\d+\]$")


def test_key(item: pytest.Item) -> CassetteKey:
    """The key of a test; xdist's groups, which it writes into node ids, are not part of it."""
    plain = f"{item.parent.nodeid}::{item.name}" if item.parent is not None else item.nodeid
    return CassetteKey.test(plain if item.nodeid.startswith(plain) else item.nodeid)


def repeated_key(item: pytest.Item) -> CassetteKey | None:
    """The key of the test that pytest-repeat has made this one of, with `--count` for instance."""
    callspec = getattr(item, "callspec", None)
    if callspec is None or _REPETITION not in callspec.params:
        return None
    return CassetteKey.test(
        _REPEATED.sub(lambda match: "]" if match["others"] else "", test_key(item).label)
    )


def fixture_keys(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Iterator[CassetteKey]:
    """The key of a wider fixture: by scope, what it is set up for, name and parameter.

    After it come those of the classes around: a class shares with those in it what it has set
    up, so whether one of those sets up its own depends on which test comes first.
    """
    param = ""
    if hasattr(request, "param"):
        index = getattr(request, "param_index", 0)
        param = param_text(request.param, index, str(request.config.rootpath))
    for node in _nodes(fixturedef, request):
        yield CassetteKey.fixture(
            fixturedef.scope,
            fixturedef.argname,
            node=node,
            base=fixture_base(fixturedef),
            param=param,
        )


def _nodes(fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> Iterator[str]:
    node: Any = request.node
    if fixturedef.scope == "session":
        yield ""
    elif isinstance(node, pytest.Item):
        yield test_key(node).label
    else:
        yield node.nodeid
        while isinstance(node := node.parent, pytest.Class):
            yield node.nodeid


def fixture_base(fixturedef: pytest.FixtureDef[Any]) -> str:
    """Where a fixture is defined: a node, or a plugin; empty for the rootdir's conftest.py."""
    if fixturedef.baseid:
        return fixturedef.baseid
    module = getattr(fixturedef.func, "__module__", "") or ""
    return "" if module.rpartition(".")[2] == "conftest" else module
