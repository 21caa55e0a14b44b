"""The examples of docs/client.md run as they stand, against the emulator."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_flymachines.emulator.launch import EmulatorProcess, launch

PAGE = Path(__file__).parents[2] / "docs" / "client.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def emulator() -> Iterator[EmulatorProcess]:
    with launch(apps=["client-app"]) as emulator:
        yield emulator


def test_the_page_has_examples() -> None:
    assert len(EXAMPLES) == 4


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_runs(
    emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("FLY_API_TOKEN", emulator.token)
    monkeypatch.setenv("FLY_FLAPS_BASE_URL", emulator.api_url)
    exec(compile(EXAMPLES[number], f"{PAGE}#{number}", "exec"), {"__name__": "example"})
