"""What `fly_scrub` names, in the ini file and in any conftest.py, is in no cassette."""

from __future__ import annotations

from pathlib import Path

from .cloud import Project
from .forks import Forks

NAMED = """
import pytest

@pytest.fixture(scope="session")
def fly_scrub():
    return [{value!r}]
"""
TEST = """
def test_it(fly_sandbox):
    said = fly_sandbox.exec(["printf", "%s", {value!r}]).stdout
    assert len(said.encode()) == {size}
    fly_sandbox.exec("true", env={{"LEVEL": {value!r}}})
"""
VALUES = {
    "one": "(p|ane)*[1-9]+$ \\",
    "two": 'caf\u00e9 "\U0001f511"\nof two lines',
    "three": "command-line-and-stdout",
}
INI = "[pytest]\naddopts = -p no:randomly\nfly_scrub =\n    LICENCE\n    a value itself\n"


def test_each_directory_names_what_is_secret_in_it(runs: Forks, tmp_path: Path) -> None:
    """Also that of a machine which was set up by a test of another directory."""
    project = Project(
        tmp_path / "project",
        "def test_ini(fly_sandbox):\n"
        "    said = fly_sandbox.exec('echo A-LICENCE-1 a value itself').stdout\n"
        "    assert len(said) == 27\n",
    )
    (project.path / "pytest.ini").write_text(INI)
    for name, value in VALUES.items():
        folder = project.path / name
        folder.mkdir()
        (folder / "conftest.py").write_text(NAMED.format(value=value))
        text = TEST.format(value=value, size=len(value.encode()))
        (folder / f"test_{name}.py").write_text(text)
    env = {"LICENCE": "A-LICENCE-1"}
    done = runs.run(project, "--fly-record=all", mode="local", env=env)
    done.has("4 passed")
    written = [path.read_bytes() for path in (project.path / "cassettes").rglob("*.yaml")]
    assert len(written) == 5
    found = b"\n".join(written)
    for word in (b"A-LICENCE-1", b"a value itself", b"(p|ane)", b"caf", b"of two", b"line-and"):
        assert word not in found
    strict = ("--fly-missing-cassette=fail", "--fly-unused=fail")
    runs.run(project, *strict, mode="replay", env=env).has("4 passed")
    runs.run(project, *strict, "three", mode="replay", env=env).has("1 passed")
