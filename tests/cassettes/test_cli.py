"""`pytest-flymachines cassettes`, on recordings that were really made."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from pytest_flymachines.cassettes.bodies import Blobs
from pytest_flymachines.cassettes.catalog import Catalog
from pytest_flymachines.cassettes.verify import differences
from tests.cassettes.machine import Server
from tests.cassettes.project import Project

SUITE = """
import pytest

@pytest.fixture(scope="session", params=["a"])
def wide(box, request):
    return box.exec(f"echo wide {request.param}")

@pytest.fixture(scope="module")
def module_wide(box):
    return box.exec("echo module")

def test_one(box, wide):
    box.exec("echo one")

@pytest.mark.parametrize("n", [1, 2])
def test_two(box, n):
    box.exec(f"echo two {n}; head -c 300000 /dev/zero | tr '\\\\0' x")

def test_only_its_fixture(module_wide):
    assert module_wide == "module\\n"
"""


@pytest.fixture
def recorded(project: Project, kept: Path) -> Project:
    (project.path / "test_a.py").write_text(SUITE)
    project.record_once(kept, passed=4)
    return project


RUN = {
    "FLY_TEST_MODE": "replay",
    "FLY_TEST_SHARED": "shared",
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
}


def cli(project: Project, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the script in the project's directory."""
    clean = {k: v for k, v in os.environ.items() if not re.search("TOKEN|PYTEST", k)}
    home = {"PYTHONPATH": str(Path(__file__).parents[2])}
    return project.script("cassettes", *args, env={**clean, **RUN, **home, **env})


def test_list_shows_whose_from_what_how_old_and_how_large(recorded: Project) -> None:
    recorded.record().assert_outcomes(passed=4)  # now
    done = cli(recorded, "list")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"OWNER +MODE +AGE +SIZE +REQUESTS", lines[0])
    assert len(lines) == 1 + 6
    one = r"test_a.py::test_one\[a\] +local +now +[\d.]+ (KiB|B) +1"
    assert any(re.fullmatch(one, line) for line in lines)
    assert any(line.startswith("fixture wide[a]@test_a.py (session)") for line in lines)
    assert any(line.startswith("sandbox debian-12-") for line in lines)
    two = next(line for line in lines if line.startswith("test_a.py::test_two[1]"))
    alone = recorded.cassette("test_a.py/test_two[1].yaml").stat().st_size
    assert f"{alone / 1024:.1f} KiB" not in two, "with its large body"


def test_check_is_content_with_a_fresh_recording(recorded: Project) -> None:
    done = cli(recorded, "check")
    assert done.returncode == 0, done.stdout
    assert done.stdout == ""
    assert "6 cassette(s) checked, 0 problem(s)" in done.stderr
    # as pre-commit does: each file that git knows
    files = [str(recorded.cassette(name)) for name in recorded.cassettes()]
    done = cli(recorded, "check", *files)
    assert done.returncode == 0, done.stdout
    assert "6 cassette(s) checked, 0 problem(s)" in done.stderr


def test_check_says_where_a_secret_is_also_beside_the_traffic(
    recorded: Project, tmp_path: Path
) -> None:
    secret = "fo1_pl4nted-s3cret"
    path = recorded.cassette("test_a.py/test_one[a].yaml")
    text = path.read_text()
    path.with_name(f"test_{secret}.yaml").write_text(text)
    path.with_name("noted.yaml").write_text(text.replace("  mode:", f"  note: {secret}\n  mode:"))
    path.with_name("remark.yaml").write_text(f"{text}# {secret}\n")
    path.with_name("blob.yaml").write_text(put_in_blob(recorded, path, secret))
    done = cli(recorded, "check", "--no-orphans", "--scrub", secret)
    assert done.returncode == 1
    assert secret not in done.stdout + done.stderr
    told = {line.partition(": ")[0].rpartition("/")[2]: line for line in done.stdout.splitlines()}
    assert "scrubbed in the name of the file" in told["test_<scrubbed********>.yaml"]
    assert "scrubbed in recording.note" in told["noted.yaml"]
    assert "scrubbed in the text of the file" in told["remark.yaml"]
    assert "scrubbed in answer 1, body" in told["blob.yaml"]
    assert len(told) == 4, done.stdout


def put_in_blob(project: Project, path: Path, secret: str) -> str:
    """The text of a cassette whose first answer has a large body with a secret in it."""
    stands_for = Blobs(project.cassette("blobs")).put(b"x\n" * 200_000 + secret.encode())
    data = yaml.safe_load(path.read_text())
    response = data["interactions"][0]["response"]
    response["body"]["string"] = stands_for.decode()
    response["recorded"].pop("layout", None)
    return str(yaml.safe_dump(data, sort_keys=False))


@pytest.mark.parametrize(
    ("planted", "told", "env"),
    [
        ("fm2_" + "lJPECAAAAAAACU" * 3, "what looks like a Fly token", {}),
        ("ghp_" + "a1B2" * 9, "what looks like a GitHub token", {}),
        ("-----BEGIN RSA PRIVATE KEY-----", "what looks like a private key", {}),
        ("hunter2hunter2", "DB_PASSWORD in answer 1, body", {"DB_PASSWORD": "hunter2hunter2"}),
        ("https://me:pa55word@x.org", "credentials in a URL in answer 1, body", {}),
    ],
)
def test_check_finds_secrets_and_does_not_show_them(
    recorded: Project, planted: str, told: str, env: dict[str, str]
) -> None:
    path = recorded.cassette("test_a.py/test_one[a].yaml")
    path.write_text(path.read_text().replace("one\\n", f"one {planted}\\n"))
    for args in (("check", "--no-orphans"), ("check", str(path))):
        done = cli(recorded, *args, **env)
        assert done.returncode == 1
        assert told in done.stdout
        assert planted not in done.stdout
    assert str(path.name) in done.stdout


def test_check_names_what_cannot_be_read(recorded: Project) -> None:
    recorded.cassette("test_a.py/test_one[a].yaml").write_text("pytest-flymachines: [")
    two = recorded.cassette("test_a.py/test_two[1].yaml")
    two.write_text(two.read_text().replace("format: 1", "format: 7"))
    next((recorded.path / "cassettes" / "blobs").iterdir()).write_bytes(b"damaged")
    done = cli(recorded, "check", "--no-orphans")
    assert done.returncode == 1
    assert "test_one[a].yaml is not a cassette that can be read" in done.stdout
    assert "has format 7, and this version reads" in done.stdout
    assert "the body kept there cannot be read" in done.stdout


@pytest.mark.parametrize(
    ("given", "instead"),
    [
        (["--fly-cassettes=other"], "by --directory"),
        (["test_a.py", "--fly-cassettes", "other"], "by --directory"),
        (["--fly-record=once"], "writes none"),
    ],
)
def test_verify_refuses_options_that_it_gives_itself(
    recorded: Project, given: list[str], instead: str
) -> None:
    done = cli(recorded, "verify", "--", *given)
    assert done.returncode == 2
    assert f"{given[-1] if '=' in given[-1] else given[-2]}: verify takes no" in done.stderr
    assert instead in " ".join(done.stderr.split())
    assert "test session starts" not in done.stdout


def test_list_shows_each_name_on_one_line(recorded: Project) -> None:
    path = recorded.cassette("test_a.py/test_one[a].yaml")
    path.write_text(
        re.sub("  test: .*", r'  test: "test_a.py::test_one[a\\tb\\nü]"', path.read_text())
    )
    assert r"test_a.py::test_one[a\tb\nü] " in cli(recorded, "list").stdout


def test_list_shows_what_cannot_be_read_and_passes_over_directories(recorded: Project) -> None:
    """A directory may be called as a file is, where tests are written in YAML."""
    recorded.cassette("cases.yaml").mkdir()
    one, two = (recorded.cassette(f"test_a.py/test_two[{n}].yaml") for n in (1, 2))
    one.write_bytes(b"pytest-flymachines \xff\xfe")
    two.write_text(two.read_text().replace("recording:\n", "recording:\n  fixture: 1\n"))
    done = cli(recorded, "list")
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"test_two\[\d\]\.yaml \(unreadable\)", done.stdout)) == 2
    done = cli(recorded, "check", "--no-orphans")
    assert done.returncode == 1
    assert "test_two[1].yaml cannot be read" in done.stdout
    assert "which says what it is of, is damaged" in done.stdout


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("test: [1]", "Expected `str`, got `array` - at `$.test`"),
        ("fixture: {name: a, scope: session, foo: b}", "unknown field `foo` - at `$.fixture`"),
        ("fixture: {name: 1, scope: session}", "got `int` - at `$.fixture.name`"),
        ("machines: 5", "got `int` - at `$.machines`"),
        ("mode: {}", "got `object` - at `$.mode`"),
    ],
)
def test_a_header_that_somebody_changed_is_told_as_damaged(
    recorded: Project, line: str, told: str
) -> None:
    path = recorded.cassette("test_a.py/test_one[a].yaml")
    text = path.read_text()  # of a key that stands there twice the later one counts
    path.write_text(text.replace("interactions:\n", f"  {line}\ninteractions:\n", 1))
    assert cli(recorded, "list").returncode == 0
    done = cli(recorded, "check")
    assert done.returncode == 1
    assert "which says what it is of, is damaged" in done.stdout
    assert told in done.stdout


def test_dates_that_people_wrote_have_an_age(recorded: Project) -> None:
    path = recorded.cassette("test_a.py/test_one[a].yaml")
    path.write_text(re.sub("  date: .*", "  date: 2020-01-01", path.read_text()))
    done = cli(recorded, "list")
    assert done.returncode == 0, done.stderr
    assert re.search(r"test_one\[a\] +local +\d{4,} d ", done.stdout)


def test_what_may_not_be_read_is_named_and_nothing_is_deleted_for_it(recorded: Project) -> None:
    """The large body may be needed by it."""
    path = recorded.cassette("test_a.py/test_two[1].yaml")
    before = recorded.cassettes()
    path.unlink()
    path.symlink_to("/proc/1/mem")  # a file whose reading fails, also for root
    listed = cli(recorded, "list")
    assert listed.returncode == 0, listed.stderr
    assert "test_two[1].yaml (unreadable)" in listed.stdout
    done = cli(recorded, "check", "--no-orphans")
    assert done.returncode == 1
    assert "test_two[1].yaml cannot be read" in done.stdout
    done = cli(recorded, "prune", "--yes")
    assert done.returncode == 1
    assert "it is not known which large bodies are needed" in done.stderr
    assert recorded.cassettes() == before


def test_an_older_file_is_named_with_what_to_do(recorded: Project) -> None:
    one = recorded.cassette("test_a.py/test_one[a].yaml")
    one.write_text(one.read_text().replace("format: 1", "format: 0"))
    done = cli(recorded, "check", "--no-orphans")
    assert done.returncode == 1
    assert "has format 0, and this version reads 1 to 1" in done.stdout
    assert "record it again with --fly-record=all" in done.stdout


def test_a_secret_in_a_large_request_is_found(recorded: Project) -> None:
    (recorded.path / "test_a.py").write_text(
        "def test_large(box):\n"
        "    where = f'/v1/apps/a/machines/{box.machine}/agent/file?path=x'\n"
        "    box.http.request('PUT', where, content=b'hunter2hunter2' * 30000)\n"
    )
    recorded.record("-k", "large").assert_outcomes(passed=1)
    path = recorded.cassette("test_a.py/test_large.yaml")
    done = cli(recorded, "check", str(path), DB_PASSWORD="hunter2hunter2")
    assert done.returncode == 1
    assert "DB_PASSWORD in request 1, body" in done.stdout


def test_a_test_file_that_moved_leaves_orphans_where_it_was(recorded: Project) -> None:
    before = recorded.cassettes()
    (recorded.path / "sub").mkdir()
    (recorded.path / "test_a.py").rename(recorded.path / "sub" / "test_b.py")
    recorded.record().assert_outcomes(passed=4)
    done = cli(recorded, "check")
    assert done.returncode == 1
    orphans = re.findall(r"(\S+): orphan: nothing makes (.*) any more", done.stdout)
    assert {owner for _, owner in orphans} == {
        "test_a.py::test_one[a]",
        "test_a.py::test_two[1]",
        "test_a.py::test_two[2]",
        "fixture wide[a]@test_a.py (session)",
        "fixture module_wide@here (module of test_a.py)",
    }
    assert cli(recorded, "prune", "--yes").returncode == 0
    left = recorded.cassettes()
    assert len(left) == len(before)
    assert not [name for name in left if "test_a.py" in name]
    assert cli(recorded, "check").returncode == 0
    recorded.replay().assert_outcomes(passed=4)


def test_orphans_are_named_and_pruned(recorded: Project) -> None:
    file = recorded.path / "test_a.py"
    file.write_text(SUITE.replace("[1, 2]", "[1]").replace('scope="session"', 'scope="package"'))
    before = recorded.cassettes()
    temporary = recorded.cassette(f"test_a.py/.{'0123' * 4}.tmp")
    temporary.write_text("half")
    theirs = recorded.cassette("test_a.py/.notes.tmp")
    theirs.write_text("of the user's editor")
    done = cli(recorded, "check")
    assert done.returncode == 1
    orphans = re.findall(r"(\S+): orphan: nothing makes (.*) any more", done.stdout)
    assert {owner for _, owner in orphans} == {
        "test_a.py::test_two[2]",
        "fixture wide[a]@test_a.py (session)",
    }
    assert len(re.findall("left over", done.stdout)) == 2, "the temporary file and a large body"
    assert "a recording that was killed has left it half" in done.stdout
    assert recorded.cassettes() - before == {f"test_a.py/{p.name}" for p in (temporary, theirs)}
    assert before <= recorded.cassettes(), "check deletes nothing"
    assert cli(recorded, "prune").returncode == 1, "nobody said yes"
    done = cli(recorded, "prune", "--yes")
    assert "deleted 4 file(s)" in done.stdout
    assert len(recorded.cassettes() & before) == len(before) - 3
    assert theirs.exists()
    assert not temporary.exists()
    assert cli(recorded, "check").returncode == 0
    assert "nothing to delete" in cli(recorded, "prune").stdout


def test_a_spec_that_no_test_needs_is_an_orphan(recorded: Project) -> None:
    (recorded.path / "test_a.py").write_text("def test_nothing():\n    pass\n")
    done = cli(recorded, "prune", "--yes")
    assert done.returncode == 0, done.stdout
    assert recorded.cassettes() == set()


def test_a_test_that_is_not_run_by_default_is_no_orphan(recorded: Project) -> None:
    (recorded.path / "other").mkdir()
    (recorded.path / "other" / "check_b.py").write_text("def test_b(box):\n    box.exec('true')\n")
    recorded.record("other/check_b.py").assert_outcomes(passed=1)
    assert "other/check_b.py/test_b.yaml" in recorded.cassettes()
    (recorded.path / "tox.ini").write_text("[pytest]\naddopts = -m 'not slow'\n")
    assert cli(recorded, "check").returncode == 0


def test_nothing_is_an_orphan_while_tests_cannot_be_collected(recorded: Project) -> None:
    before = recorded.cassettes()
    (recorded.path / "test_a.py").write_text("import nothing_of_this_name\n")
    (recorded.path / "test_b.py").write_text("def test_fine(): pass\n")
    for command in (["check"], ["prune", "--yes"]):
        done = cli(recorded, *command)
        assert done.returncode == 1
        assert "could not be collected" in done.stderr
        assert "nothing_of_this_name" in done.stderr
        assert "test_fine" not in done.stderr
    assert recorded.cassettes() == before


def test_a_users_own_vcr_cassettes_are_left_alone(recorded: Project) -> None:
    users = recorded.path / "cassettes" / "test_a" / "test_users.yaml"
    users.parent.mkdir()
    users.write_text(yaml.safe_dump({"version": 1, "interactions": []}))
    assert cli(recorded, "check").returncode == 0
    assert "test_users" not in cli(recorded, "list").stdout
    assert users.exists()


def entries(project: Project, change: str) -> list[str]:
    """Record once more with a changed machine, and compare each test's two recordings."""
    directory = project.path / "cassettes"
    old = {path.name: Catalog(directory).read(path) for path in directory.glob("test_a.py/*.yaml")}
    project.record(CHANGE=change).assert_outcomes(passed=2)
    new = {path.name: Catalog(directory).read(path) for path in directory.glob("test_a.py/*.yaml")}
    return [line for name in sorted(old) for line in differences(old[name], new[name])]


def test_differences_are_those_of_meaning(project: Project, machine: Server) -> None:
    (project.path / "test_a.py").write_text(
        "import os\n"
        "def test_answers(box):\n"
        "    box.exec(f'echo ' + os.environ.get('CHANGE', 'as ever'))\n"
        "    assert box.exec('cat answer')\n"
        "def test_polls(box):\n"
        "    where = f'/v1/apps/a/machines/{box.machine}/agent/processes'\n"
        "    body = {'command': ['sh', '-c', 'for i in 1 2 3; do echo $i; sleep 0.05; done']}\n"
        "    name = box.http.request('POST', where, json=body).json()['id']\n"
        "    text, running = '', True\n"
        "    while running:\n"
        "        body = {'stdout': len(text), 'wait_s': 0.02}\n"
        "        got = box.http.request('POST', f'{where}/{name}/poll', json=body).json()\n"
        "        text, running = text + got['stdout'], got['running'] or not got['stdout'] == ''\n"
    )
    (machine.directory / "answer").write_text("42")
    project.record().assert_outcomes(passed=2)
    time.sleep(0.01)
    assert entries(project, "as ever") == []
    (machine.directory / "answer").write_text("43")
    told = "\n".join(entries(project, "as never"))
    assert "asked now: POST /v1/apps/{app}/machines/{sandboxes/debian-12" in told
    assert "echo as never" in told
    assert "no longer asked" in told
    assert '-  "stdout": "42"' in told
    assert '+  "stdout": "43"' in told
    assert "processes" not in told
