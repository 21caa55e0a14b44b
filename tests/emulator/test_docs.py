"""The page about the emulator says what is so."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from pytest_flymachines.emulator import options
from pytest_flymachines.emulator.faults import KINDS, parse_fault
from pytest_flymachines.emulator.launch import launch

PAGE = (Path(__file__).parents[2] / "docs" / "emulator.md").read_text()


def test_curl_example_runs() -> None:
    [script] = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    with launch(apps=["demo"]) as emulator:
        environment = {
            **os.environ,
            "FLY_API_HOSTNAME": emulator.api_url,
            "FLY_API_TOKEN": emulator.token,
            "NO_PROXY": "127.0.0.1",
        }
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert '"state":"started"' in done.stdout
    assert '"exit_code":0' in done.stdout


def test_python_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    [script] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(script, {})
    assert "http://127.0.0.1:" in capsys.readouterr().out


def test_every_option_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        options.parse(["--help"], {})
    known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--help"}
    table = re.findall(r"^\| `(--[^|]*(?:\\\|[^|]*)*)\|", PAGE, re.MULTILINE)
    told = set(re.findall(r"--[a-z-]+", " ".join(table)))
    assert told == known


def test_every_fault_is_told() -> None:
    table = PAGE.partition("## Faults")[2].partition("## Control")[0]
    specs = [spec for spec in re.findall(r"`([^`]+)`", table) if spec.partition("=")[0] in KINDS]
    assert {parse_fault(spec).kind for spec in specs} == set(KINDS)
    [example] = re.findall(r"--fault '(.*)'", table)
    assert parse_fault(example).kind == "lost"
