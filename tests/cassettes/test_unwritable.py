"""What becomes of a run when a cassette that many tests need cannot be written."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest

from tests.cassettes.project import Project

COUNT = 6
SUITE = f"""
import pytest

@pytest.fixture(scope="session")
def wide(box):
    yield box.exec("echo wide $COUNT")
    box.exec("echo gone")

@pytest.mark.parametrize("n", range({COUNT}))
def test_x(box, wide, n):
    box.exec(f"echo {{n}} $COUNT")
"""
WIDE = "session/wide@test_a.py.yaml"
TOLD = "is not told again for tests that follow"


@pytest.fixture
def suite(project: Project, kept: Path) -> Project:
    (project.path / "test_a.py").write_text(SUITE)
    project.record_once(kept, passed=COUNT)
    return project


def within(project: Project, tmp_path: Path, *before: str) -> tuple[str, ...]:
    """A prefix for commands: in a mount namespace of their own, after some others."""
    script = tmp_path / "run"
    lines = [
        "set -e",
        f"cd {shlex.quote(str(project.path))}",
        *before,
        "set +e",
        '"$@"',
        "status=$?",
    ]
    lines += ["cp -r cassettes after", "exit $status"]
    script.write_text("\n".join(lines))
    return ("unshare", "-rm", "sh", str(script))


UNWRITABLE = {
    "read-only": (
        "mount -t tmpfs tmpfs cassettes/session",
        f"cp before/{WIDE} cassettes/{WIDE}",
        "mount -o remount,bind,ro cassettes/session",
    ),
    "full": (
        "mount -t tmpfs -o size=16k tmpfs cassettes/session",
        f"cp before/{WIDE} cassettes/{WIDE}",
        "! cat /dev/zero >cassettes/session/fill 2>/dev/null",
    ),
}
WHY = {"read-only": "Read-only file system", "full": "No space left on device"}


@pytest.mark.parametrize(("how", "workers"), [("read-only", []), ("full", ["-n", "2"])])
def test_a_fixtures_cassette_that_cannot_be_written_is_told_once(
    suite: Project, tmp_path: Path, how: str, workers: list[str]
) -> None:
    (suite.path / "cassettes").rename(suite.path / "before")
    prefix = within(suite, tmp_path, "mkdir -p cassettes/session", *UNWRITABLE[how])
    result = suite.record(*workers, prefix=prefix)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=COUNT, errors=1)
    text = result.stdout.str()
    assert text.count(TOLD) == 1
    assert f"{WIDE} was not written and is as it was before: " in text
    assert WHY[how] in text
    assert "record them again with --fly-record=all" in text
    old, new = (suite.path / name for name in ("before", "after"))
    assert (new / WIDE).read_bytes() == (old / WIDE).read_bytes()
    assert not list(new.rglob("*.tmp"))
    (new / "session" / "fill").unlink(missing_ok=True)
    shutil.rmtree(suite.path / "cassettes")
    new.rename(suite.path / "cassettes")
    assert len(list((suite.path / "cassettes" / "test_a.py").iterdir())) == COUNT
    assert len(list((suite.path / "cassettes" / "sandboxes").iterdir())) == 1
    suite.replay().assert_outcomes(passed=COUNT)


def test_what_lies_in_the_place_of_a_specs_cassette_is_told_once(suite: Project) -> None:
    (path,) = suite.cassette("sandboxes").iterdir()
    before = {name: suite.cassette(name).read_bytes() for name in suite.cassettes()}
    path.unlink()
    (path / "mine").mkdir(parents=True)
    result = suite.record("-n", "2")
    result.assert_outcomes(passed=COUNT, errors=1)
    assert result.stdout.str().count(TOLD) == 1
    assert (path / "mine").is_dir()
    written = {name for name in before if suite.cassette(name).is_file()}
    assert all(suite.cassette(name).read_bytes() != before[name] for name in written)
    assert len(written) == COUNT + 1


def test_a_test_and_a_fixture_that_cannot_be_written_are_both_told(suite: Project) -> None:
    for name in (WIDE, "test_a.py/test_x[0].yaml"):
        suite.cassette(name).unlink()
        suite.cassette(name).mkdir()
    result = suite.record()
    result.assert_outcomes(passed=COUNT, errors=1)
    text = result.stdout.str()
    assert "test_x[0].yaml was not written" in text
    assert text.count(TOLD) == 1
