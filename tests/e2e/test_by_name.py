"""Sandboxes that are asked for by name, while a test runs: collection does not see those."""

from __future__ import annotations

from pathlib import Path

from .cloud import Project

SUITE = '''
import pytest


@pytest.fixture(scope="session")
def built(request):
    box = request.getfixturevalue("fly_sandbox")
    box.exec("echo built >built")
    yield box
    box.exec("rm built")


def test_by_itself(request):
    assert request.getfixturevalue("fly_sandbox").exec("echo a").stdout == "a\\n"


def test_built(built):
    assert built.read_text("built") == "built\\n"


def test_built_too(request):
    assert request.getfixturevalue("built").exec("cat built").stdout == "built\\n"


def double(n):
    """
    >>> getfixture("fly_sandbox").exec("echo doctest").stdout.strip()
    'doctest'
    """
'''


def test_they_are_recorded_and_replayed_as_all_others(tmp_path: Path) -> None:
    project = Project(tmp_path / "project", SUITE)
    doctests = "--doctest-modules"
    recorded = project.run(doctests, "--fly-record=all", mode="local")
    recorded.has("4 passed")
    assert {path.name.partition("-")[0] for path in project.path.rglob("*.yaml")} == {
        *(f"{name}.yaml" for name in ("test_by_itself", "test_built", "test_built_too")),
        *("test_it.double.yaml", "built@test_it.py.yaml", "cook"),
    }
    for chosen in ([], ["-k", "built_too"], ["-k", "double"]):
        done = project.run(
            doctests, "--fly-missing-cassette=fail", "--fly-unused=fail", *chosen, mode="replay"
        )
        assert done.code == 0, done.output
    (project.path / "test_it.py").write_text(SUITE.replace('"echo doctest"', '"echo a doctest"'))
    missed = project.run(doctests, "-k", "double", mode="replay")
    missed.has("pytest test_it.py::test_it.double --doctest-modules --fly-record=all")
