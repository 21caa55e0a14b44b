"""Which directory `pytest-flymachines cassettes` looks into, and what it costs to look."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from pytest_flymachines.cassettes.catalog import Catalog
from pytest_flymachines.cassettes.home import home, rootdir_of
from pytest_flymachines.errors import CassetteError

SCRIPT = Path(sys.executable).with_name("pytest-flymachines")
EXAMPLES = Path(__file__).parents[2] / "cassettes"


@pytest.fixture(autouse=True)
def _no_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)


def cli(where: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SCRIPT, "cassettes", *args], cwd=where, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("file", "text", "found"),
    [
        ("pytest.ini", "[pytest]\nfly_cassettes = tapes here\n", "tapes here"),
        ("pyproject.toml", "[tool.pytest.ini_options]\nfly_cassettes = 't/\u00fc'\n", "t/\u00fc"),
        ("tox.ini", "[pytest]\naddopts = -q --fly-cassettes=t --color no\n", "t"),
        ("setup.cfg", "[tool:pytest]\naddopts =\n    --fly-cassettes 'a b'\n", "a b"),
        ("pytest.ini", "[pytest]\nfly_cassettes = /absolute\n", "/absolute"),
        ("pytest.ini", "[pytest]\n", "cassettes"),
    ],
)
def test_the_directory_is_the_one_that_tests_use(
    tmp_path: Path, file: str, text: str, found: str
) -> None:
    (tmp_path / file).write_text(text)
    below = tmp_path / "src" / "deep"
    below.mkdir(parents=True)
    for start in (tmp_path, below):
        assert home(start)[::2] == (tmp_path / found, tmp_path)


def test_what_is_typed_comes_before_ini(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nfly_cassettes = a\naddopts = --fly-cassettes=b")
    assert home(tmp_path).directory == tmp_path / "b"
    monkeypatch.setenv("PYTEST_ADDOPTS", "--fly-cassettes=c")
    assert home(tmp_path).directory == tmp_path / "c"


def test_an_ini_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options\n")
    with pytest.raises(CassetteError, match=r"pyproject\.toml"):
        home(tmp_path)
    done = cli(tmp_path, "list")
    assert done.returncode == 1
    assert "pyproject.toml" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("options", ["--fly-cassettes", "-q 'open"])
def test_options_that_cannot_be_read_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: str
) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    monkeypatch.setenv("PYTEST_ADDOPTS", options)
    with pytest.raises(CassetteError, match="addopts, of the ini file or PYTEST_ADDOPTS"):
        home(tmp_path)


def test_the_project_of_a_directory_that_is_named_is_the_one_with_an_ini_file(
    tmp_path: Path,
) -> None:
    """Else every test would be taken for one that is gone."""
    directory = tmp_path / "tests" / "cassettes"
    directory.mkdir(parents=True)
    assert rootdir_of(directory) == tmp_path / "tests"
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    assert rootdir_of(directory) == tmp_path


def test_it_says_where_it_found_nothing(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nfly_cassettes = tapes\n")
    done = cli(tmp_path, "list")
    assert done.returncode == 2
    told = f"there is no directory {tmp_path}/tapes (fly_cassettes of {tmp_path}/pytest.ini)"
    assert told in done.stderr.replace("\n", " ")
    (tmp_path / "tapes").mkdir()
    for command in ("list", "check"):
        done = cli(tmp_path, command)
        assert done.returncode == 0, done.stderr
        assert f"no cassettes in {tmp_path}/tapes (fly_cassettes of" in done.stderr
    assert f"nothing to delete in {tmp_path}/tapes" in cli(tmp_path, "prune").stdout


def test_list_works_in_a_directory_below_and_with_odd_names(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nfly_cassettes = t\u00e4pes of mine\n")
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(EXAMPLES, elsewhere)
    (tmp_path / "t\u00e4pes of mine").symlink_to(elsewhere)
    (tmp_path / "src").mkdir()
    done = cli(tmp_path / "src", "list")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1 + len(Catalog(elsewhere).paths())


def test_a_listing_says_what_reading_all_of_it_says() -> None:
    catalog = Catalog(EXAMPLES)
    for path in catalog.paths():
        seen, entry = catalog.summary(path), catalog.read(path)
        assert (seen.entry.header, seen.requests) == (entry.header, len(entry.requests))
        assert seen.size >= path.stat().st_size


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n- request:", "\n<<<<<<< HEAD\n- request:", 1),
        lambda text: text.replace("interactions:", "interactions :", 1).replace("version: 1\n", ""),
        lambda text: text[:200],
        lambda text: "",
    ],
)
def test_another_layout_is_read_as_a_whole(tmp_path: Path, change: object) -> None:
    folder = tmp_path / "test_a.py"
    folder.mkdir()
    path = Catalog(EXAMPLES).paths()[0]
    (folder / "test_x.yaml").write_text(change(path.read_text()))  # type: ignore[operator]
    catalog = Catalog(tmp_path)
    (found,) = catalog.paths()
    assert catalog.summary(found).entry.problem == catalog.read(found).problem


def test_a_huge_cassette_is_listed_without_being_held(tmp_path: Path) -> None:
    path = Catalog(EXAMPLES).paths()[0]
    text = path.read_text()
    head, _, first = text.partition("interactions:\n")
    (tmp_path / "test_a.py").mkdir()
    huge = tmp_path / "test_a.py" / "test_huge.yaml"
    with huge.open("w") as file:
        file.write(f"{head}interactions:\n")
        while file.tell() < 20_000_000:
            file.write(first)
    count = len(re.findall("^- request:", huge.read_text(), re.MULTILINE))
    catalog = Catalog(tmp_path)
    tracemalloc.start()
    seen = catalog.summary(huge)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seen.requests == count
    assert peak < 1_000_000
