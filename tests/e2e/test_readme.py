"""README's example runs as it stands there, and its table of options is that of the plugin."""

from __future__ import annotations

import re
import runpy
import shutil
from pathlib import Path

import pytest

from .conftest import Run, commit

HERE = Path(__file__).parents[2]
README = (HERE / "README.md").read_text()
MAKEFILE = """\
install:
\tprintf '#!/bin/sh\\ntest -e conf.toml && exit 2\\n' >/usr/local/bin/tool
\tchmod +x /usr/local/bin/tool
\t@echo installed
"""


@pytest.mark.skipif(shutil.which("make") is None, reason="the example calls make")
def test_the_example_runs(run: Run, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test, the ini file and each command, one after the other, as they stand there."""
    [example] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    [ini] = re.findall(r"```ini\n(.*?)```", README, re.DOTALL)
    commands = re.findall(r"^\$ pytest(.*?)(?:#.*)?$", README, re.MULTILINE)
    (repository / "Makefile").write_text(MAKEFILE)
    (repository / "pytest.ini").write_text(ini)
    (repository / "test_install.py").write_text(example)
    commit(repository, "the tool")
    monkeypatch.chdir(repository)
    said = [run(*command.split(), mode="") for command in commands]
    for result in said:
        result.assert_outcomes(passed=1)
    mode = re.compile(r"^fly sandbox: (\w+) ", re.MULTILINE)
    modes = [mode.findall(result.stdout.str())[0] for result in said]
    assert modes == ["local", "local", "replay"]


def test_the_table_of_options_is_that_of_the_plugin() -> None:
    script = runpy.run_path(str(HERE / "scripts" / "update-readme"))
    assert script["table"]() in README, "run scripts/update-readme"


def test_every_page_that_is_linked_is_there() -> None:
    pages = re.findall(r"\]\(([\w./-]+)\)", README)
    assert pages
    assert [page for page in pages if not (HERE / page).exists()] == []
    assert {str(page.relative_to(HERE)) for page in (HERE / "docs").glob("*.md")} - {
        *pages
    } == set()
