"""Fixtures whose owner is not plain: of nested classes, of functions, with objects given."""

from __future__ import annotations

import enum
import threading
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest

from pytest_flymachines.cassettes.parameters import param_text
from tests.cassettes.project import Project

CLASSES = """
import pytest


@pytest.fixture(scope="class")
def room(box):
    yield box.exec("echo room")
    box.exec("echo left")


class TestOuter:
    def test_outer(self, room):
        assert room == "room\\n"

    class TestInner:
        def test_inner(self, room):
            assert room == "room\\n"


@pytest.mark.xdist_group("g")
def test_in_no_class(room):
    assert room == "room\\n"
"""

OBJECTS = """
import pytest


class Size:
    def __init__(self, cpus):
        self.cpus = cpus


@pytest.fixture(scope="session")
def size(box, request):
    return box.exec(f"echo {request.param.cpus}")


@pytest.mark.parametrize("size", [Size(1), Size(2)], indirect=True)
def test_small(size):
    assert size in ("1\\n", "2\\n")


@pytest.mark.parametrize("size", [Size(8), Size(16)], indirect=True)
def test_large(size):
    assert size in ("8\\n", "16\\n")
"""


def test_a_class_and_those_in_it_find_what_they_shared(project: Project) -> None:
    (project.path / "test_a.py").write_text(CLASSES)
    project.record("-n", "1", "--dist", "loadgroup").assert_outcomes(passed=3)
    project.replay().assert_outcomes(passed=3)
    project.replay("-k", "inner").assert_outcomes(passed=1, deselected=2)
    inner = "test_a.py::TestOuter::TestInner::test_inner"
    project.replay(inner, "test_a.py::TestOuter::test_outer").assert_outcomes(passed=2)


def test_objects_for_parameters_are_told_apart_by_what_they_are(project: Project) -> None:
    (project.path / "test_a.py").write_text(OBJECTS)
    project.record().assert_outcomes(passed=4)
    project.replay().assert_outcomes(passed=4)
    project.replay("-k", "small").assert_outcomes(passed=2, deselected=2)


REPEATS = """
def pytest_addoption(parser):
    parser.addoption("--count", type=int, default=1)


@pytest.hookimpl(trylast=True)
def pytest_generate_tests(metafunc):
    count = metafunc.config.getoption("count")
    if count > 1:
        name = "__pytest_repeat_step_number"
        metafunc.fixturenames.append(name)
        numbers = [f"{n + 1}-{count}" for n in range(count)]
        metafunc.parametrize(name, range(count), indirect=True, ids=numbers)


@pytest.fixture
def __pytest_repeat_step_number(request):
    pass
"""


def test_repetitions_are_answered_as_their_test_was(project: Project) -> None:
    """As pytest-repeat makes them."""
    conftest = project.path / "conftest.py"
    conftest.write_text(conftest.read_text() + REPEATS)
    (project.path / "test_a.py").write_text(
        "import pytest\n"
        "def test_x(box):\n"
        "    box.exec('echo x')\n"
        "@pytest.mark.parametrize('word', ['', '1-2'])\n"
        "def test_y(box, word):\n"
        "    box.exec('echo ' + word)\n"
    )
    project.record().assert_outcomes(passed=3)
    project.replay("--count=2").assert_outcomes(passed=6)
    project.record("--count=2", "-k", "test_x").assert_outcomes(passed=2, deselected=4)
    assert {name for name in project.cassettes() if "test_x" in name} == {
        "test_a.py/test_x.yaml",
        "test_a.py/test_x[1-2].yaml",
        "test_a.py/test_x[2-2].yaml",
    }


class Color(enum.Enum):
    RED = 1


@dataclass
class Case:
    name: str
    names: frozenset[str]
    path: Path


class Thing:
    def __init__(self, **facts: object) -> None:
        self.__dict__.update(facts)


class Broken:
    def __repr__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("param", "text"),
    [
        ({"b", "a", "c"}, "set({'a', 'b', 'c'})"),
        ([frozenset({2, 1})], "[frozenset({1, 2})]"),
        (set(), "set({})"),
        ({"b": (1,), "a": []}, "{'b': (1,), 'a': []}"),
        (Color.RED, "Color.RED"),
        (Thing, "Thing"),
        (Thing(size=1, names={"b", "a"}), "Thing(size=1, names=set({'a', 'b'}))"),
        (Case("x", frozenset("ab"), Path("/home/me/project/data")), None),
        (PurePosixPath("data/a.txt"), "data/a.txt"),
        ("/home/me/project/data", "./data"),
        ("#7", "'#7'"),
        (Path("/home/you"), "#7"),
        (Thing(), "#7"),
        (Thing(lock=threading.Lock()), "#7"),
        (lambda: None, "#7"),
        (Broken(), "#7"),
    ],
)
def test_what_a_parameter_is_called(param: object, text: str | None) -> None:
    """By what is the same for every seed of hashes, at every address and in every checkout."""
    text = text or "Case(name='x', names=frozenset({'a', 'b'}), path=./data)"
    assert param_text(param, 7, "/home/me/project") == text


def test_what_contains_itself_is_called_by_its_position() -> None:
    endless: list[object] = []
    endless.append(endless)
    assert param_text(endless, 7) == "#7"
