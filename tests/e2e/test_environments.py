"""A project means the same in the environment of a developer and in that of a CI job.

And whatever bytes or gaps the environment has, it does not keep machines from starting.
"""

from __future__ import annotations

import os
import pwd
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_flymachines.emulator.engines import bwrap, kept
from pytest_flymachines.emulator.owner import _started

from .conftest import Run, commit

TESTS = """
import pytest

@pytest.fixture(scope="session")
def site(fly_sandbox):
    fly_sandbox.write_file("/tmp/site/index.html", "gr\\u00fc\\u00dfe")
    return "/tmp/site"

@pytest.mark.parametrize("word", ["plain", "with space", "\\u65e5\\u672c"])
def test_words(fly_sandbox, site, word):
    said = fly_sandbox.exec(["sh", "-c", 'cat "$0/index.html"; printf %s "$1"', site, word])
    assert said.stdout == "gr\\u00fc\\u00dfe" + word

def test_what_a_machine_has(fly_sandbox):
    said = fly_sandbox.exec("umask; date +%Z; echo ${LANG:-none}; stat -c %a / /usr /tmp hello.txt")
    assert said.stdout.split() == ["0022", "UTC", "none", "755", "755", "1777", "644"]
    assert fly_sandbox.exec("echo $COLUMNS$CI$FLY_API_TOKEN").stdout == "\\n"

def test_files(fly_workspace, tmp_path):
    (tmp_path / "tree" / "sub").mkdir(parents=True)
    (tmp_path / "tree" / "sub" / "file").write_text("x")
    (tmp_path / "tree" / "run").write_text("x")
    (tmp_path / "tree" / "run").chmod(0o700)
    fly_workspace.upload(tmp_path / "tree", "tree")
    assert fly_workspace.exec("cat tree/sub/file; test -x tree/run").stdout == "x"
    fly_workspace.download("tree", tmp_path / "back")
    assert (tmp_path / "back" / "sub" / "file").read_text() == "x"

def test_a_terminal(fly_sandbox):
    with fly_sandbox.terminal("/bin/sh") as terminal:
        terminal.send_line("stty size; echo $TERM")
        terminal.expect("24 80")
"""

NOWHERE = "http://127.0.0.1:9"
DEVELOPER = {
    "TZ": "Asia/Kathmandu",
    "LANG": "de_DE.UTF-8",
    "FORCE_COLOR": "1",
    "COLUMNS": "40",
    "PYTHONHASHSEED": "1234",
    **dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY", "ALL_PROXY"), NOWHERE),
    "FLY_API_TOKEN": "fo1_of-the-developer",
    "FLY_APP": "of-the-developer",
    "FLY_ORG": "developers",
    "FLY_REGION": "syd",
}
CI = {
    "CI": "true",
    "GITHUB_ACTIONS": "true",
    "TERM": "dumb",
    "TZ": "UTC",
    "LC_ALL": "C",
    "PYTHONUTF8": "0",
    "PYTEST_ADDOPTS": "--tb=short",
    "HOME": "/nonexistent",
}

Environment = Callable[[], Iterator[None]]


@pytest.fixture
def developer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """Private files, few descriptors, temporary files at a path too long for a socket."""

    def entered() -> Iterator[None]:
        temporary = tmp_path / "tëmp of mine" / ("long" * 30)
        temporary.mkdir(parents=True)
        umask = os.umask(0o077)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
        try:
            with monkeypatch.context() as patch:
                for name, value in (DEVELOPER | {"TMPDIR": str(temporary)}).items():
                    patch.setenv(name, value)
                patch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
                yield
        finally:
            os.umask(umask)
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    return entered


@pytest.fixture
def ci(monkeypatch: pytest.MonkeyPatch) -> Environment:
    """No locale, no home, no terminal."""

    def entered() -> Iterator[None]:
        with monkeypatch.context() as patch:
            for name, value in CI.items():
                patch.setenv(name, value)
            yield

    return entered


@pytest.mark.parametrize("order", [("developer", "ci"), ("ci", "developer")], ids="-to-".join)
def test_what_was_recorded_in_one_environment_replays_in_the_other(
    run: Run,
    repository: Path,
    order: tuple[str, str],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    there, here = (contextmanager(request.getfixturevalue(name)) for name in order)
    (repository / "pytest.ini").write_text("[pytest]\nfly_repo = .\n")
    (repository / "test_it.py").write_text(TESTS)
    commit(repository, "tests")
    monkeypatch.chdir(repository)
    with there():
        recorded = run("--fly-record=all", "--fly-engine=bubblewrap", new=True)
    recorded.assert_outcomes(passed=6)
    elsewhere = tmp_path / "another path"
    shutil.copytree(repository, elsewhere)
    monkeypatch.chdir(elsewhere)
    with here():
        replayed = run("--fly-missing-cassette=fail", "--fly-unused=fail", mode="replay", new=True)
    replayed.assert_outcomes(passed=6)


def test_a_mount_with_a_name_that_is_no_text_hides_no_control_group(tmp_path: Path) -> None:
    """Someone's disk may have a name of an old system; each is in this computer's table."""
    program = """
import os, subprocess, sys
from pytest_flymachines.emulator.engines.cgroups import own_groups
before = own_groups()
os.mkdir(b"caf\\xe9")
subprocess.run(["mount", "-t", "tmpfs", "none", b"caf\\xe9"], check=True)
assert own_groups() == before
"""
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-c", program],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_an_owner_may_have_any_name() -> None:
    """The kernel cuts it at 15 bytes, also within a letter."""
    program = "open('/proc/self/comm', 'wb').write(b'caf\\xe9'); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as owner:
        assert owner.stdout is not None
        owner.stdout.readline()
        assert _started(owner.pid) >= _started(os.getpid())
        owner.communicate(b"\n")


def test_a_user_may_have_a_number_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `docker run --user 12345` has it: no name, no home."""

    def nobody(uid: int) -> pwd.struct_passwd:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    for name in ("HOME", "XDG_CACHE_HOME", "USER", "LOGNAME", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    made = kept.keep("thing", "0", Path.mkdir, tmp_path)
    assert made.path.parent == tmp_path
    made.close()
    table = tmp_path / "subuid"
    table.write_bytes(f"caf\xe9:1:9\n{os.geteuid()}:100000:65536\n".encode("latin-1"))
    assert bwrap._subordinate(table) == "100000 65535"
