"""What `pip install pytest-flymachines` gives, without any extra and without other plugins.

The packages are those that the metadata asks for, linked into a directory that an interpreter
without site-packages looks into; none of the others can be imported there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
NAME = "pytest-flymachines"
Python = Callable[..., "subprocess.CompletedProcess[str]"]


def needed(name: str, known: set[str]) -> set[str]:
    """A distribution and what it asks for, without extras."""
    if name not in known:
        known.add(name)
        for text in distribution(name).requires or ():
            wanted = Requirement(text)
            if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
                needed(wanted.name, known)
    return known


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the plugin and what it asks for."""
    path = tmp_path_factory.mktemp("packages")
    for name in needed(NAME, set()):
        found = distribution(name)
        for top in {Path(file).parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
            if not top.endswith(".pth") and not (path / top).is_symlink():
                (path / top).symlink_to(Path(str(found.locate_file(top))).resolve())
    if not (path / "pytest_flymachines").is_symlink():  # an editable installation
        (path / "pytest_flymachines").symlink_to(ROOT / "pytest_flymachines")
    return path


@pytest.fixture
def python(packages: Path, tmp_path: Path) -> Python:
    """`python(*args, cwd=...)`: an interpreter that has these packages and no other."""

    def start(*args: str, cwd: Path = tmp_path) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PYTHONPATH": str(packages)}
        command = [sys.executable, "-S", *args]
        return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)

    return start


def test_only_what_the_metadata_asks_for_is_there(packages: Path, python: Python) -> None:
    code = "import importlib.util as u; print(*[u.find_spec(n) for n in ('starlette', 'xdist')])"
    assert python("-c", code).stdout.split() == ["None", "None"]


def test_recordings_replay(python: Python, tmp_path: Path) -> None:
    for name in ("examples", "cassettes"):
        shutil.copytree(ROOT / name, tmp_path / name)
    options = ["-q", "-pno:cacheprovider", "--fly-missing-cassette=fail", "--fly-unused=fail"]
    done = python("-m", "pytest", *options, cwd=tmp_path / "examples" / "tally")
    assert "8 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("option", ["--fly-sandbox", "--fly-mode=local"])
def test_local_mode_names_the_extra(python: Python, tmp_path: Path, option: str) -> None:
    (tmp_path / "test_it.py").write_text("def test_it(fly_sandbox): pass\n")
    done = python("-m", "pytest", "-q", option)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert done.stderr.strip() == (
        "ERROR: local mode cannot start its emulator: it needs the extra `local`, and there is no "
        "starlette, uvicorn, trustme, h2, dns, cryptography: "
        "pip install 'pytest-flymachines[local]'"
    )


def test_the_emulator_names_the_extra(python: Python) -> None:
    done = python("-m", "pytest_flymachines.emulator")
    assert done.returncode == 1
    assert done.stderr.startswith("pytest-flymachines emulator: it needs the extra `local`")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("token", "code", "mark"), [("", 1, "BAD "), ("emu-none", 1, "    ")])
def test_doctor_tells_what_is_not_installed(
    python: Python, monkeypatch: pytest.MonkeyPatch, token: str, code: int, mark: str
) -> None:
    """With a token nobody needs local mode; this one leads nowhere, which is bad, too."""
    monkeypatch.setenv("FLY_API_TOKEN", token)
    monkeypatch.setenv("FLY_FLAPS_BASE_URL", "http://127.0.0.1:9")
    main = "from pytest_flymachines.cli import main; main()"
    done = python("-c", main, "doctor")
    assert done.returncode == code, done.stderr
    assert f"{mark} local mode: it needs the extra `local`" in done.stdout
    assert done.stderr == ""


def test_what_other_extras_bring_is_named_where_it_is_used(python: Python) -> None:
    docker = "from pytest_flymachines.emulator.engines import ENGINES; ENGINES['docker']('/tmp')"
    assert "pip install 'pytest-flymachines[docker]'" in python("-c", docker).stderr
    screen = "from pytest_flymachines.sandbox.screen import Emulation as E; E(24, 80, answer=print)"
    assert "pip install 'pytest-flymachines[terminal]'" in python("-c", screen).stderr
