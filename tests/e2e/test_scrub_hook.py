"""What is secret by `fly_scrub`, or by what another test does with it, is in no cassette."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_flymachines.cassettes import Scrubber

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


LATE = "correct/horse+battery=staple"


@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize("agent", ["auto", "off"])
def test_what_a_later_test_makes_known_for_a_secret_is_in_no_cassette(
    runs: Forks, tmp_path: Path, workers: str, agent: str
) -> None:
    """Also in another worker; and each test replays alone."""
    project = Project(
        tmp_path / "project",
        f"def test_early(fly_sandbox):\n"
        f"    fly_sandbox.write_file('a', 'token={LATE}' * 20)\n"
        f"    assert fly_sandbox.exec(['echo', '{LATE}']).stdout\n",
    )
    late = f"""
def test_late(fly_sandbox):
    assert fly_sandbox.exec("echo $DB_PASSWORD", env={{"DB_PASSWORD": "{LATE}"}}).stdout
"""
    (project.path / "test_late.py").write_text(late)
    if workers == "2":  # the other worker has written it before this one knows
        (project.path / "conftest.py").write_text(WAITS)
    options = ("-n", workers, "--dist", "loadfile", f"--fly-agent={agent}")
    runs.run(project, "--fly-record=all", *options, mode="local").has("2 passed")
    files = [path for path in (project.path / "cassettes").rglob("*") if path.is_file()]
    found = b"\n".join(path.read_bytes() for path in files)
    assert b"test_early" in found
    assert b"test_late" in found
    assert not Scrubber(environ={"DB_PASSWORD": LATE}).find(found)
    strict = ("--fly-missing-cassette=fail", "--fly-unused=fail", f"--fly-agent={agent}")
    runs.run(project, *strict, mode="replay").has("2 passed")
    for name in ("test_early", "test_late"):
        runs.run(project, *strict, "-k", name, mode="replay").has("1 passed")


@pytest.mark.parametrize("dies", ["who wrote it", "who knows it"])
def test_what_a_worker_knew_that_died_is_known(runs: Forks, tmp_path: Path, dies: str) -> None:
    """Nobody can ask it any more for what it wrote, or for what it learnt."""
    early = f"def test_early(fly_sandbox):\n    fly_sandbox.exec('echo {LATE}')\n"
    late = f"""
import os

def test_late(fly_sandbox):
    fly_sandbox.exec("true", env={{"DB_PASSWORD": "{LATE}"}})
"""
    if dies == "who wrote it":
        early += "def test_dies(fly_sandbox):\n    import os\n    os._exit(1)\n"
    else:
        late += "    os._exit(1)\n"
    project = Project(tmp_path / "project", early)
    (project.path / "test_late.py").write_text(late)
    (project.path / "conftest.py").write_text(WAITS)
    options = ("-n", "2", "--dist", "loadfile", "--max-worker-restart=0")
    runs.run(project, "--fly-record=all", *options, mode="local").has("1 failed")
    files = [path for path in (project.path / "cassettes").rglob("*") if path.is_file()]
    found = b"\n".join(path.read_bytes() for path in files)
    assert b"test_early" in found
    assert not Scrubber(environ={"DB_PASSWORD": LATE}).find(found)
    runs.run(project, "-k", "early", "--fly-missing-cassette=fail", mode="replay").has("1 passed")


UNKNOWN = """
import base64, json, os

KEY = os.environ.get("SHOP_API_KEY", "dummy")

def test_files(fly_sandbox, tmp_path):
    for name, size in (("small", 2), ("large", 900)):
        (tmp_path / name).write_text(f"A=b\\nKEY={KEY}\\n" + "more=1\\n" * size)
        fly_sandbox.upload(tmp_path / name, name)
        fly_sandbox.write_file(f"{name}.json", json.dumps({"key": KEY, "rows": ["x"] * size}))

def test_base64(fly_sandbox):
    word = base64.b64encode(f"user:{KEY}".encode()).decode()
    fly_sandbox.exec(f"echo 'Authorization: Basic {word}' >a", env={"LEVEL": f"a {KEY}"})

def test_tree(fly_sandbox, tmp_path):
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / ".env").write_text(f"KEY={KEY}\\n")
    (tmp_path / "conf" / "b").write_text("b" * 100)
    fly_sandbox.upload(tmp_path / "conf", "conf")
"""


@pytest.mark.parametrize(
    ("agent", "select", "count"), [("auto", "test_", 3), ("off", "not tree", 2)]
)
def test_who_replays_may_have_another_secret_or_none(
    runs: Forks, tmp_path: Path, agent: str, select: str, count: int
) -> None:
    project = Project(tmp_path / "project", UNKNOWN)
    options = (f"--fly-agent={agent}", "-k", select)
    env = {"SHOP_API_KEY": LATE}
    done = runs.run(project, "--fly-record=all", *options, mode="local", env=env)
    done.has(f"{count} passed")
    strict = ("--fly-missing-cassette=fail", "--fly-unused=fail", *options)
    for other in (env, {}, {"SHOP_API_KEY": "another-and-longer-key-of-somebody-else"}):
        runs.run(project, *strict, mode="replay", env=other).has(f"{count} passed")


WAITS = """
import time
from pathlib import Path

def pytest_runtest_setup(item):
    if item.name == "test_late" and item.config.getoption("fly_record") == "all":
        for _ in range(600):
            if list(Path(__file__).parent.glob("cassettes/**/test_early.yaml")):
                return
            time.sleep(0.05)
        raise AssertionError("the other worker has not written it")
"""
