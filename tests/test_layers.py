"""The folder listing is the architecture: imports point down only."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "pytest_flymachines"

# From the bottom up. A layer may import its own modules and those of lower rows, except what
# `NEVER` forbids.
LAYERS = (
    ("errors", "_clock", "_table", "_http", "emulator", "agent.server"),
    ("spec", "repository", "tracebacks"),
    ("options", "common_values"),
    ("settings",),
    ("api",),
    ("sandbox.channel",),
    ("agent",),
    ("sandbox",),
    ("cassettes",),
    ("marks", "progress", "sharing"),
    ("backend", "machine_config", "prices", "volumes"),
    ("attempts", "deadline", "foreign_agent", "budget"),
    ("creation",),
    ("provision", "sweep"),
    ("keepalive", "teardown"),
    ("run", "controller"),
    ("report", "signals"),
    ("recordings",),
    ("reaper", "doctor", "session", "shell", "probe"),
    ("plugin", "cli"),
)
NEVER = {
    "api": {"pytest"},
    "emulator": {"pytest", "httpx", "httpcore"},
    "agent.server": {"pytest", "msgspec", "httpx"},
    "sandbox": {"pytest", "httpx"},
    "agent": {"pytest", "httpx"},
    "spec": {"pytest"},
}


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        yield name.removesuffix(".__init__") if name != "__init__" else "", path


def layer(name: str) -> tuple[int, str]:
    """The most specific row that names the module or a package around it."""
    best = (-1, "")
    for row, names in enumerate(LAYERS):
        for known in names:
            if (name == known or name.startswith(known + ".")) and len(known) > len(best[1]):
                best = row, known
    return best


def imported(path: Path) -> Iterator[str]:
    """Absolute names that a module imports when it runs, wherever in it."""
    tree = ast.parse(path.read_text())
    checking = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in checking:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


MODULES = [(name, path) for name, path in modules() if name]
KNOWN = {name for name, _ in MODULES}


@pytest.mark.parametrize(("name", "path"), MODULES, ids=[name for name, _ in MODULES])
def test_imports_point_down(name: str, path: Path) -> None:
    row, home = layer(name)
    assert row >= 0, f"{name} is in no layer: add it to LAYERS"
    for target in imported(path):
        if not target.startswith("pytest_flymachines."):
            assert target.partition(".")[0] not in NEVER.get(home, set()), f"{name}: {target}"
            continue
        short = target.removeprefix("pytest_flymachines.")
        if short not in KNOWN:
            continue
        below, other = layer(short)
        assert (below, other) == (row, home) or below < row, f"{name} imports {short}"


def test_the_emulator_imports_nothing_of_the_client() -> None:
    for name, path in MODULES:
        if layer(name)[1] != "emulator":
            continue
        ours = {t for t in imported(path) if t.startswith("pytest_flymachines.")}
        assert {t for t in ours if not t.startswith("pytest_flymachines.emulator")} == set(), name


def test_httpx_and_httpcore_are_imported_in_one_package_only() -> None:
    users = {
        layer(n)[1]
        for n, p in MODULES
        if {"httpx", "httpcore"} & {t.split(".")[0] for t in imported(p)}
    }
    assert users == {"_http"}


def test_the_controller_has_imported_what_its_thread_uses() -> None:
    """Else a test that forks meanwhile has a child that waits for the import forever."""
    program = "import sys, pytest_flymachines.controller; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert {b"filelock", b"httpcore", b"h11"} <= set(done.stdout.split())
