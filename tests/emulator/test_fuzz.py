"""A small part of `scripts/fuzz`: generated requests to every operation of Fly's document."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(sys.prefix) / "fuzz"


@pytest.mark.skipif(
    not (TOOLS / "schemathesis").exists(),
    reason="schemathesis is not there; scripts/test and scripts/fuzz install it",
)
def test_no_generated_request_gets_a_server_error_or_an_undocumented_answer() -> None:
    command = [sys.executable, "-m", "tests.emulator.fuzz", "--examples", "4"]
    environment = os.environ | {"PYTHONPATH": str(TOOLS)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
