"""Where cassettes lie."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pytest_flymachines.cassettes.keys import CassetteKey, spec_facts
from pytest_flymachines.cassettes.parameters import param_text
from pytest_flymachines.spec import SandboxSpec


def path(nodeid: str) -> str:
    return str(CassetteKey.test(nodeid).path)


def test_a_test_has_a_file_below_its_test_file() -> None:
    assert path("tests/test_a.py::test_x") == "tests/test_a.py/test_x.yaml"
    assert path("test_a.py::test_x[small]") == "test_a.py/test_x[small].yaml"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("t.py::test_x[a/b]", "t.py::test_x[a-b]"),
        ("t.py::test_x[a::b]", "t.py::test_x[a.b]"),
        ("t.py::test_x[ä]", "t.py::test_x[ö]"),
        ("t.py::test_x[日本]", "t.py::test_x[日木]"),
        ("t.py::test_x[" + "a" * 300 + "1]", "t.py::test_x[" + "a" * 300 + "2]"),
        ("t.py::test_x[A]", "t.py::test_x[a]"),
        ("t.py::TestX::test_y", "t.py::TestX.test_y"),
        ("t.py::TestAB::test_y", "t.py::TestAb::test_y"),
        ("t.py::test_x[con]", "t.py::test_x[CON]"),
        ("t.py::test_x[]", "t.py::test_x"),
        ("t.py::test_x[ ]", "t.py::test_x[  ]"),
        ("t.py::test_x[..]", "t.py::test_x[../..]"),
        ("a b/t.py::x", "a-b/t.py::x"),
        ("../t.py::x", "up/t.py::x"),
        ("session/t.py::x", "session-tests/t.py::x"),
        ("t.py::x", "t.py::y"),
    ],
)
def test_different_tests_have_different_files_also_where_case_does_not_count(
    one: str, other: str
) -> None:
    assert path(one).casefold() != path(other).casefold()


@pytest.mark.parametrize(
    "nodeid",
    [
        "t.py::test_x[../../../etc/passwd]",
        "t.py::test_x[\x00\n\t]",
        "t.py::test_x[" + "ü" * 300 + "]",
        "t.py::test_x[C:\\temp]",
        "t.py::test_x[nul]",
        "../../t.py::test_x",
        "/abs/t.py::test_x",
        "t.py::test_x[\udc80]",
        "aux/con.py::nul",
        "session/test_x.py::test_y",
    ],
)
def test_a_name_is_safe_on_every_file_system(nodeid: str) -> None:
    parts = CassetteKey.test(nodeid).path.parts
    for part in parts:
        assert re.fullmatch(r"[A-Za-z0-9_.,=+@()\[\]-]{1,120}", part)
        assert part not in ("..", ".", "session", "module", "sandboxes", "blobs")
        assert not re.fullmatch(r"(?i)(con|nul|aux|prn)(\..*)?", part)


def test_fixtures_of_one_name_are_told_apart_by_scope_place_definition_and_parameter() -> None:
    keys = [
        CassetteKey.fixture("session", "server"),
        CassetteKey.fixture("session", "server", base="tests/a"),
        CassetteKey.fixture("session", "server", param="x"),
        CassetteKey.fixture("module", "server", node="tests/test_a.py"),
        CassetteKey.fixture("module", "server", node="tests/test_b.py"),
        CassetteKey.fixture("module", "server", node="tests/test_a.py", base="tests/test_a.py"),
        CassetteKey.fixture("class", "server", node="tests/test_a.py::TestA"),
    ]
    assert str(keys[0].path) == "session/server.yaml"
    assert str(keys[3].path) == "module/tests/test_a.py/server.yaml"
    assert len({str(key.path).casefold() for key in keys}) == len(keys)


@pytest.mark.parametrize(
    ("param", "text"),
    [
        ("big", "big"),
        ("1", "'1'"),
        (1, "1"),
        (None, "None"),
        ("None", "'None'"),
        ((1, "a"), "(1, 'a')"),
        (object(), "#3"),
    ],
)
def test_a_parameter_has_a_text_that_is_the_same_in_every_run(param: object, text: str) -> None:
    assert param_text(param, 3) == text


def test_a_spec_has_a_name_that_does_not_depend_on_app_place_computer_or_secret(
    tmp_path: Path,
) -> None:
    def name(root: Path, **fields: object) -> str:
        return CassetteKey.sandbox(SandboxSpec(**fields), root).label  # type: ignore[arg-type]

    here, there = tmp_path / "here", tmp_path / "there"
    plain = name(here)
    assert plain.startswith("cook-sandbox-latest-")
    assert plain == name(there, app="other", org="me", regions=("fra", "ams"))
    assert name(here, repo=str(here)) == name(there, repo=".")
    assert name(here, repo=".") != plain
    assert name(here, env={"API_TOKEN": "one"}) == name(here, env={"API_TOKEN": "two"})
    assert name(here, env={"LEVEL": "one"}) != name(here, env={"LEVEL": "two"})
    assert name(here, repo="https://me:pw@example.com/x.git") == name(
        here, repo="https://example.com/x.git"
    )
    assert name(here, agent="/home/a/cook") == name(here, agent="/home/b/cook")
    assert name(here, memory_mb=512) != plain


def test_the_facts_of_a_spec_are_what_is_not_the_default() -> None:
    spec = SandboxSpec(image="debian:12", memory_mb=512, app="mine")
    assert spec_facts(spec) == {"image": "debian:12", "memory_mb": 512}
