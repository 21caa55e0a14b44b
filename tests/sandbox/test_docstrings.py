"""What an editor shows of the handle's methods: each argument, and what is raised."""

from __future__ import annotations

import builtins
import inspect
import re

import pytest

from pytest_flymachines import api, errors
from pytest_flymachines.sandbox import RemoteProcess, Sandbox, Terminal
from pytest_flymachines.sandbox.path import SandboxPath
from pytest_flymachines.sandbox.processes import ProcessInput

HANDLE = (Sandbox, SandboxPath, RemoteProcess, ProcessInput, Terminal)
# They ask nobody, or are there to end things whatever has become of the machine.
RAISE_NOTHING = {
    "Sandbox.attach",
    "Sandbox.close_forwards",
    "ProcessInput.close",
    "ProcessInput.flush",
    "RemoteProcess.end",
    "RemoteProcess.transcript",
    "Terminal.end",
    "Terminal.transcript",
}


def own_methods(kind: type) -> dict[str, object]:
    """Public methods that are not those of the standard library."""
    return {
        f"{kind.__name__}.{name}": method
        for name, method in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_") and method.__module__.startswith("pytest_flymachines")
    }


METHODS = {name: method for kind in HANDLE for name, method in own_methods(kind).items()}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_says_what_it_takes_and_raises(name: str) -> None:
    method = METHODS[name]
    doc = inspect.getdoc(method) or ""
    assert callable(method)
    arguments = [n for n in inspect.signature(method).parameters if n != "self"]
    unsaid = [n for n in arguments if not re.search(rf"`{n}`|^ +{n}: ", doc, re.MULTILINE)]
    assert unsaid == []
    _, found, raised = doc.partition("Raises:\n")
    assert bool(found) is (name not in RAISE_NOTHING)
    words = re.findall(r"^    (\w[\w, ]*):", raised, re.MULTILINE)
    for word in ", ".join(words).split(", ") if words else []:
        known = [getattr(place, word, None) for place in (builtins, errors, api)]
        assert any(isinstance(k, type) and issubclass(k, BaseException) for k in known), word


def test_all_of_the_handle_is_looked_at() -> None:
    assert len(METHODS) > 80
    assert set(METHODS) >= RAISE_NOTHING
