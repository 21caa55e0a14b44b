"""The zipapp: how it is built, what runs it, what it refuses to start with."""

from __future__ import annotations

import io
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from importlib.util import MAGIC_NUMBER
from pathlib import Path

import pytest

from pytest_flymachines.agent import bundle
from pytest_flymachines.errors import SandboxPermissionDenied
from pytest_flymachines.sandbox.channel import Command
from tests.agent.running import open_channel, running_agent
from tests.agent.test_processes import run
from tests.agent.test_terminals import Client
from tests.agent.test_trees import fill, snapshot


def pythons() -> dict[str, Path]:
    """One interpreter of each version from 3.10 that this computer has."""
    candidates = [Path(sys.executable), Path("/usr/bin/python3")]
    candidates += sorted(
        Path(pwd.getpwuid(os.getuid()).pw_dir).glob(".pyenv/versions/3.1?.*/bin/python3")
    )
    found: dict[str, Path] = {}
    for python in candidates:
        argv = [str(python), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        version = subprocess.run(argv, capture_output=True, text=True).stdout.strip()
        found.setdefault(version, python)
    return {v: python for v, python in found.items() if v.startswith("3.1")}


PYTHONS = pythons()


def test_the_bundle_is_the_same_each_time_and_small() -> None:
    first = bundle.build()
    bundle.build.cache_clear()
    assert bundle.build() == first
    assert len(first) < 120_000
    assert len(bundle.build(compiled=True)) < 400_000
    assert first.startswith(b"#!/usr/bin/env python3\nPK")


def test_the_bundle_has_sources_alone_with_one_date() -> None:
    entries = _entries(bundle.build())
    assert {os.path.dirname(e.filename) for e in entries} == {"", "cook_agent", "h11", "wsproto"}
    assert all(e.filename.endswith(".py") for e in entries)
    assert {e.date_time for e in entries} == {(1980, 1, 1, 0, 0, 0)}
    assert [e.filename for e in entries] == sorted(e.filename for e in entries)


def test_the_compiled_bundle_has_code_beside_each_source_and_no_path_of_this_computer() -> None:
    archive = bundle.build(compiled=True)
    names = {e.filename for e in _entries(archive)} - {"__main__.py"}
    assert {n for n in names if n.endswith(".pyc")} == {f"{n}c" for n in names if n[-1] == "y"}
    here = str(Path(bundle.__file__).parent).encode()
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert not [name for name in names if here in opened.read(name)]


@pytest.mark.parametrize("python", PYTHONS.values(), ids=PYTHONS.keys())
def test_a_python_takes_the_code_that_is_for_it_and_else_the_source(
    python: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "agent.pyz"
    archive.write_bytes(bundle.build(compiled=True))
    program = (
        "import importlib.util, sys; sys.path.insert(0, sys.argv[1]); import cook_agent.main as m; "
        "print(importlib.util.MAGIC_NUMBER.hex(), m.main.__code__.co_filename)"
    )
    argv = [str(python), "-IS", "-c", program, str(archive)]
    said = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout
    magic, filename = said.split()
    compiled = magic == MAGIC_NUMBER.hex()
    assert filename == ("cook_agent/main.py" if compiled else f"{archive}/cook_agent/main.py")


def _entries(archive: bytes) -> list[zipfile.ZipInfo]:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return opened.infolist()


@pytest.mark.parametrize("python", PYTHONS.values(), ids=PYTHONS.keys())
def test_every_python_from_310_runs_it(python: Path, tmp_path: Path) -> None:
    fill(tmp_path / "tree")
    with running_agent(tmp_path, python=str(python)) as agent, open_channel(agent) as channel:
        assert run(channel, "cat", stdin=b"\xff").stdout == b"\xff"
        assert run(channel, "tty", pty=(24, 80)).exit_code == 0
        tree = os.fsencode(tmp_path / "tree")
        channel.put_tree(b"copy", channel.get_tree(tree, exclude=["none"]))
        channel.save_checkpoint("c")
        channel.drop_workspace(channel.make_workspace("c"))
        assert set(snapshot(tmp_path / "tree")) - set(snapshot(agent.base / "copy")) == {b"none"}
        with Client(agent, token=agent.token) as client:
            assert client.ask(type="list") == {"type": "list"}
        channel.start(Command(argv=[b"sleep", b"60"], timeout_s=0.1), wait_s=20, forget=True)
        assert "Traceback" not in agent.log()
        assert "Warning" not in agent.log()


@pytest.fixture
def testers_directory() -> Iterator[Path]:
    """A directory that belongs to an ordinary user."""
    if os.getuid() != 0 or subprocess.run(["id", "tester"], capture_output=True).returncode:
        pytest.skip("needs root, and a user called tester")
    directory = Path(tempfile.mkdtemp(dir="/tmp"))
    shutil.chown(directory, "tester")
    yield directory
    shutil.rmtree(directory)


def test_an_ordinary_user_may_run_it(testers_directory: Path) -> None:
    """No other user then, no overlays; everything else is there."""
    options = {"python": "/usr/bin/python3", "user": "tester"}
    with (
        running_agent(testers_directory, **options) as agent,  # type: ignore[arg-type]
        open_channel(agent) as channel,
    ):
        assert run(channel, "id", "-un").stdout == b"tester\n"
        assert run(channel, "id", "-un", user="tester").stdout == b"tester\n"
        with pytest.raises(Exception, match="cannot become 'root'"):
            run(channel, "true", user="root")
        with pytest.raises(SandboxPermissionDenied):
            channel.write(b"/etc/new", [b"x"], mode=None, parents=False)
        with pytest.raises(SandboxPermissionDenied):
            list(channel.read(b"/etc/shadow"))
        assert run(channel, "tty", pty=(24, 80)).exit_code == 0
        channel.mkdir(b"tree", mode=0o777, parents=False, exist_ok=False)
        channel.write(b"tree/file", [b"old"], mode=0o444, parents=False)
        channel.mkdir(b"tree/closed", mode=0o555, parents=False, exist_ok=False)
        channel.put_tree(b"copy", channel.get_tree(b"tree"))
        channel.put_tree(b"copy", channel.get_tree(b"tree"))
        assert snapshot(agent.base / "copy") == snapshot(agent.base / "tree")
        channel.save_checkpoint("c")
        path = channel.make_workspace("c")
        assert snapshot(Path(os.fsdecode(path))) == snapshot(agent.base)
        channel.drop_workspace(path)
        channel.write(b"tree/file", [b"new"], mode=None, parents=False)
        channel.restore_checkpoint("c")
        assert b"".join(channel.read(b"tree/file")) == b"old"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-listen", "nonsense"], "-listen 'nonsense': expected :PORT"),
        (["-listen", "127.0.0.1:99999"], "cook-agent:"),
        (["-listen", "192.0.2.1:80"], "cook-agent:"),
        (["--token-sha256-file", "/no/such/file"], "No such file or directory: '/no/such/file'"),
        (["--token-sha256-file", "/etc/hostname"], "expected a SHA-256 in hex"),
        (["--base", "/dev/null/x"], "/dev/null"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
    ],
)
def test_it_says_why_it_does_not_start(tmp_path: Path, arguments: list[str], words: str) -> None:
    archive = tmp_path / "agent.pyz"
    archive.write_bytes(bundle.build())
    argv = [sys.executable, "-I", str(archive), "--state", str(tmp_path), "-listen", "127.0.0.1:0"]
    ended = subprocess.run([*argv, *arguments], capture_output=True, text=True, timeout=30)
    assert ended.returncode != 0
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with running_agent(tmp_path) as agent:
        argv = [sys.executable, "-I", str(tmp_path / "agent.pyz")]
        argv += ["-listen", f"127.0.0.1:{agent.port}", "--state", str(tmp_path / "other")]
        ended = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 1
    assert str(agent.port) in ended.stderr
    assert "in use" in ended.stderr


def test_the_usage_names_every_option(tmp_path: Path) -> None:
    archive = tmp_path / "agent.pyz"
    archive.write_bytes(bundle.build())
    argv = [sys.executable, "-I", str(archive), "--help"]
    usage = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    for option in ("-listen", "--token-sha256-file", "--base", "--state"):
        assert option in usage


def test_it_runs_unpacked_too(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "pytest_flymachines.agent.server", "--help"]
    assert "cook-agent" in subprocess.run(argv, capture_output=True, text=True, check=True).stdout
