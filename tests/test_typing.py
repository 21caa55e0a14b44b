"""What type checkers and editors know of the public names."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

import pytest_flymachines
from pytest_flymachines.spec import SandboxSpec, SpecChanges

ROOT = Path(__file__).parents[1]
ERROR = re.compile(r"^(?P<file>[^:]+):(?P<line>\d+): error: .*\[(?P<code>[a-z-]+)\]$")
MISTAKES = """\
from pytest_flymachines import Sandbox, SandboxFactory

def mistakes(sandbox: Sandbox, make: SandboxFactory) -> None:
    sandbox.exec("true", timeout="5")  # error: arg-type
    sandbox.exec("true", shell=True)  # error: call-arg
    sandbox.exec("true").exit_cod  # error: attr-defined
    sandbox.path("a").read_text().decode()  # error: attr-defined
    make(memory="512")  # error: call-arg
    make(memory_mb="512")  # error: arg-type
"""


def test_mypy_accepts_right_uses_of_the_api_and_finds_each_wrong_one(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text(MISTAKES)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "tests/typing/api.py", str(wrong)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    # mypy's cache may name the file of the same content that another run had
    found = {
        (Path(match["file"]).name, int(match["line"]), match["code"])
        for line in done.stdout.splitlines()
        if (match := ERROR.match(line))
    }
    expected = {
        (wrong.name, number, line.partition("# error: ")[2])
        for number, line in enumerate(MISTAKES.splitlines(), 1)
        if "# error: " in line
    }
    assert found == expected, done.stdout + done.stderr


def test_each_field_of_a_spec_can_be_changed_with_its_type() -> None:
    assert get_type_hints(SpecChanges) == get_type_hints(SandboxSpec)
    assert list(SpecChanges.__annotations__) == [f.name for f in fields(SandboxSpec)]


def test_every_public_name_can_be_imported() -> None:
    for name in pytest_flymachines.__all__:
        assert getattr(pytest_flymachines, name) is not None
    assert set(pytest_flymachines.__all__) <= set(dir(pytest_flymachines))
