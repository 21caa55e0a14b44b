"""Whose requests go where, in real runs of pytest, with and without workers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cassettes.project import Project

SUITE = """
import threading

import pytest


@pytest.fixture(scope="session")
def server(box):
    name = box.exec("echo server").strip()
    yield name
    assert box.exec("echo stopped") == "stopped\\n"


@pytest.fixture(scope="module", params=["small", "Large/one"])
def size(box, request):
    return box.exec(f"echo size {request.param}")


@pytest.fixture(scope="class")
def room(server, box):
    yield box.exec(f"echo room of {server}")
    box.exec("echo left")


@pytest.fixture
def clean(box):
    box.exec("echo clean")
    yield
    box.exec("echo cleaned")


def test_plain(box):
    assert box.exec("echo a") == "a\\n"


def test_counts(box):
    assert int(box.exec("echo $COUNT")) > 0


@pytest.mark.parametrize("word", ["a/b", "a-b", "A/b", "日本", "", "x" * 300, "..", "con"])
def test_words(box, word):
    assert box.exec(f"echo '{word}'") == word + "\\n"


def test_server(server, box):
    assert box.exec(f"echo {server}") == "server\\n"


def test_size(size, box):
    assert box.exec(f"echo '{size.strip()}'") == size


class TestRoom:
    def test_one(self, room, clean, box):
        assert box.exec("echo one") == "one\\n"

    def test_two(self, room, box):
        assert box.exec("echo two") == "two\\n"


class TestOther:
    def test_one(self, room, box):
        assert box.exec("echo one") == "one\\n"


def test_threads(box):
    out = []
    threads = [
        threading.Thread(target=lambda i=i: out.append(box.exec(f"echo {i}"))) for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(out) == [f"{i}\\n" for i in range(4)]


def test_late(box, request):
    assert request.getfixturevalue("server") == "server"


def test_without_any_request():
    pass
"""
COUNT = 19
IDS = ["-q", "-o", "disable_test_id_escaping_and_forfeit_all_rights_to_community_support=true"]


@pytest.fixture
def suite(project: Project) -> Project:
    (project.path / "tests").mkdir()
    (project.path / "tests" / "test_suite.py").write_text(SUITE)
    return project


@pytest.fixture
def recorded(suite: Project, kept: Path) -> Project:
    suite.record_once(kept, *IDS, passed=COUNT)
    return suite


def nodeids(project: Project) -> list[str]:
    result = project.replay(*IDS, "--collect-only")
    return [line for line in result.outlines if "::" in line]


def test_each_owner_has_its_file(recorded: Project) -> None:
    names = recorded.cassettes()
    for name in (
        "session/server@tests-test_suite.py-",
        "module/tests/test_suite.py/size[small]@here.yaml",
        "module/tests/test_suite.py/size[Large-one]@here-",
        "class/tests/test_suite.py/TestRoom-",
        "class/tests/test_suite.py/TestOther-",
        "sandboxes/debian-12-",
        "tests/test_suite.py/test_plain.yaml",
        "tests/test_suite.py/TestRoom.test_one-",
        "tests/test_suite.py/test_words[a-b].yaml",
    ):
        assert [found for found in names if found.startswith(name)], name
    # late and without_any_request asked nothing; 2 size, 2 room, server and spec are wider
    assert len(names) == COUNT - 2 + 6
    assert len({name.casefold() for name in names}) == len(names)


def test_every_test_replays_alone(recorded: Project) -> None:
    ids = nodeids(recorded)
    assert len(ids) == COUNT
    # each in a process of its own costs too much for all of them
    for nodeid in ids[::4]:
        recorded.replay(*IDS, nodeid).assert_outcomes(passed=1)


def test_the_suite_replays_in_reverse_and_in_random_orders(recorded: Project) -> None:
    ids = nodeids(recorded)
    recorded.replay(*IDS, *reversed(ids)).assert_outcomes(passed=COUNT)
    for seed in (1, 2):
        recorded.replay(*IDS, f"--randomly-seed={seed}").assert_outcomes(passed=COUNT)


def test_the_suite_replays_on_workers(recorded: Project) -> None:
    recorded.replay(*IDS, "-n", "4").assert_outcomes(passed=COUNT)
    for dist in ("loadscope", "loadfile", "loadgroup", "worksteal"):
        recorded.replay(*IDS, "-n", "2", "--dist", dist).assert_outcomes(passed=COUNT)
    result = recorded.replay(*IDS, "--dist", "each", "--tx", "2*popen")
    result.assert_outcomes(passed=2 * COUNT)


@pytest.mark.parametrize("dist", ["load", "loadgroup"])
def test_what_workers_recorded_side_by_side_replays(suite: Project, dist: str) -> None:
    suite.record(*IDS, "-n", "3", "--dist", dist).assert_outcomes(passed=COUNT)
    assert len(suite.cassettes()) == COUNT - 2 + 6
    suite.replay(*IDS).assert_outcomes(passed=COUNT)
    suite.replay(*IDS, "-n", "2").assert_outcomes(passed=COUNT)


def test_groups_of_xdist_do_not_change_the_file(project: Project) -> None:
    project.path.joinpath("test_a.py").write_text(
        "import pytest\n"
        "@pytest.mark.xdist_group('g')\n"
        "def test_x(box):\n"
        "    assert box.exec('echo a')\n"
    )
    project.record("-n", "1", "--dist", "loadgroup").assert_outcomes(passed=1)
    assert "test_a.py/test_x.yaml" in project.cassettes()
    project.replay().assert_outcomes(passed=1)


def test_a_test_that_failed_is_not_written_and_its_fixtures_are_for_the_others(
    project: Project,
) -> None:
    project.path.joinpath("test_a.py").write_text(
        "import pytest\n"
        "@pytest.fixture(scope='session')\n"
        "def server(box):\n"
        "    return box.exec('echo server')\n"
        "@pytest.fixture(scope='session')\n"
        "def unlucky(box):\n"
        "    return box.exec('echo unlucky')\n"
        "def test_bad(box, server):\n"
        "    box.exec('echo bad')\n"
        "    assert 0\n"
        "def test_good(box, server):\n"
        "    box.exec('echo good')\n"
        "def test_unlucky(box, unlucky):\n"
        "    assert 0\n"
        "def test_error(box):\n"
        "    box.exec('echo error')\n"
        "@pytest.fixture(autouse=True)\n"
        "def teardown(request):\n"
        "    yield\n"
        "    assert 'error' not in request.node.name\n"
        "@pytest.mark.xfail(strict=True)\n"
        "def test_expected(box):\n"
        "    assert box.exec('echo expected') == 'no'\n"
        "def test_skips(box):\n"
        "    box.exec('echo skips')\n"
        "    pytest.skip('now')\n"
    )
    result = project.record()
    result.assert_outcomes(passed=2, failed=2, errors=1, xfailed=1, skipped=1)
    names = {re.sub("-[0-9a-f]{8}", "", name) for name in project.cassettes()}
    assert names == {
        "sandboxes/debian-12.yaml",
        "session/server@test_a.py.yaml",
        "test_a.py/test_good.yaml",
        "test_a.py/test_expected.yaml",
    }
    project.replay("-k", "good or expected").assert_outcomes(passed=1, xfailed=1, deselected=1 * 4)


def test_once_records_only_what_is_new(project: Project) -> None:
    file = project.path / "test_a.py"
    file.write_text("def test_x(box):\n    box.exec('echo x')\n")
    project.record(mode="once").assert_outcomes(passed=1)
    before = project.cassette("test_a.py/test_x.yaml").read_text()
    file.write_text(file.read_text() + "def test_y(box):\n    box.exec('echo y')\n")
    project.record(mode="once").assert_outcomes(passed=2)
    assert project.cassette("test_a.py/test_x.yaml").read_text() == before
    project.replay().assert_outcomes(passed=2)


def test_reruns_record_the_attempt_that_passed_and_replay_each_from_its_start(
    project: Project,
) -> None:
    project.path.joinpath("test_a.py").write_text(
        "tries = []\n"
        "def test_flaky(box):\n"
        "    tries.append(1)\n"
        "    box.exec(f'echo try {len(tries)}')\n"
        "    assert len(tries) == 3\n"
        "attempts = []\n"
        "def test_steady(box):\n"
        "    attempts.append(1)\n"
        "    assert box.exec('echo the same') == 'the same\\n'\n"
        "    import os\n"
        "    assert len(attempts) == (2 if os.environ.get('STUMBLE') else 1)\n"
    )
    result = project.record("--reruns", "3")
    result.assert_outcomes(passed=2)
    text = project.cassette("test_a.py/test_flaky.yaml").read_text()
    assert "echo try 3" in text
    assert "echo try 1" not in text
    result = project.replay("--reruns", "3", "-k", "steady", STUMBLE="1")
    assert "1 passed, 1 deselected, 1 rerun" in result.stdout.str()


def test_a_changed_command_fails_that_test_alone_and_shows_both(recorded: Project) -> None:
    file = recorded.path / "tests" / "test_suite.py"
    file.write_text(file.read_text().replace('box.exec("echo a")', 'box.exec("echo  b")'))
    result = recorded.replay(*IDS)
    result.assert_outcomes(passed=COUNT - 1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*tests/test_suite.py::test_plain now asks something that cassettes/tests/*",
            '*-    "echo a"*',
            '*+    "echo  b"*',
            "*record it again with: pytest tests/test_suite.py::test_plain * --fly-record=all",
        ]
    )


def test_the_command_that_records_again_fits_the_directory_pytest_was_started_in(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project.path / "sub").mkdir()
    (project.path / "sub" / "test_a.py").write_text("def test_x(box):\n    box.exec('echo x')\n")
    project.record().assert_outcomes(passed=1)
    (project.path / "sub" / "test_a.py").write_text(
        "def test_x(box):\n    box.exec('echo other')\n"
    )
    monkeypatch.chdir(project.path / "sub")
    result = project.replay("--rootdir", "..", "-c", "../tox.ini")
    result.assert_outcomes(failed=1)
    again = "test_a.py::test_x --config-file=../tox.ini --rootdir=.. --fly-record=all"
    assert f"again with: pytest {again}" in result.stdout.str()


@pytest.mark.parametrize("workers", [[], ["-n", "2"]])
def test_a_test_without_cassette_is_skipped_or_fails(project: Project, workers: list[str]) -> None:
    file = project.path / "test_a.py"
    file.write_text("def test_x(box):\n    box.exec('echo x')\n")
    project.record().assert_outcomes(passed=1)
    file.write_text(
        "import pytest, threading\n"
        "def test_new(box):\n"
        "    box.exec('echo new')\n"
        "def test_swallows(box):\n"
        "    with pytest.raises(Exception):\n"
        "        box.exec('echo new')\n"
        "@pytest.fixture\n"
        "def late(box):\n"
        "    yield\n"
        "    box.exec('echo late')\n"
        "def test_late(late):\n"
        "    pass\n"
        "@pytest.fixture(scope='session')\n"
        "def wide(box):\n"
        "    return box.exec('echo wide')\n"
        "def test_wide(wide):\n"
        "    pass\n"
        "def test_wide_again(wide):\n"
        "    pass\n"
        "def test_plain():\n"
        "    pass\n"
    )
    result = project.replay("-rs", *workers, FLY_TEST_MISSING="skip")
    result.assert_outcomes(passed=2, skipped=5)  # the test of `late` passed before its teardown
    assert "was never recorded: there is no cassettes/test_a.py/test_new.yaml" in (
        result.stdout.str().replace("\n", " ").replace("  ", " ")
    )
    result = project.replay(*workers, FLY_TEST_MISSING="fail")
    outcomes = result.parseoutcomes()
    assert outcomes["passed"] == 2
    assert outcomes["failed"] + outcomes["errors"] == 5


def test_a_test_with_subtests_is_skipped_as_a_whole(project: Project) -> None:
    file = project.path / "test_a.py"
    file.write_text("def test_x(box):\n    pass\n")
    project.record().assert_outcomes(passed=1)
    file.write_text(
        "def test_x(box, subtests):\n"
        "    for n in range(2):\n"
        "        with subtests.test(n=n):\n"
        "            box.exec(f'echo {n}')\n"
        "def test_wrong(box, subtests):\n"
        "    with subtests.test():\n"
        "        box.exec('echo')\n"
        "    with subtests.test():\n"
        "        assert 0\n"
    )
    result = project.replay(FLY_TEST_MISSING="skip")
    # of the second one, a subtest failed by itself
    result.assert_outcomes(skipped=2, failed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_a_miss_that_a_test_catches_fails_it_all_the_same(project: Project) -> None:
    file = project.path / "test_a.py"
    text = (
        "def test_x(box):\n"
        "    try:\n"
        "        box.exec('echo x')\n"
        "    except Exception:\n"
        "        pass\n"
    )
    file.write_text(text)
    project.record().assert_outcomes(passed=1)
    file.write_text(text.replace("echo x", "echo other"))
    result = project.replay(FLY_TEST_MISSING="skip")
    result.assert_outcomes(failed=1)
    assert "now asks something that" in result.stdout.str()


def test_a_provisioning_that_is_expected_to_fail_is_recorded_for_its_test(
    project: Project,
) -> None:
    project.path.joinpath("test_a.py").write_text(
        "import pytest\n"
        "def provision(box):\n"
        "    from pytest_flymachines.spec import SandboxSpec\n"
        "    with box.recorder.provisioning(SandboxSpec(image='bad')):\n"
        "        box.exec('echo bad')\n"
        "        raise RuntimeError('no')\n"
        "def test_expects(box):\n"
        "    with pytest.raises(RuntimeError):\n"
        "        provision(box)\n"
        "def test_fails(box):\n"
        "    provision(box)\n"
        "def test_passes(box):\n"
        "    box.exec('echo x')\n"
    )
    project.record("-k", "not expects").assert_outcomes(passed=1, failed=1, deselected=1)
    assert not [name for name in project.cassettes() if "bad" in name]
    project.record("-k", "not fails").assert_outcomes(passed=2, deselected=1)
    assert [name for name in project.cassettes() if "bad" in name]
    project.replay("-k", "expects").assert_outcomes(passed=1, deselected=2)


def test_recorded_requests_that_nobody_made_are_told(project: Project) -> None:
    file = project.path / "test_a.py"
    text = (
        "import pytest\n"
        "@pytest.fixture(scope='session')\n"
        "def wide(box):\n"
        "    box.exec('echo wide 1')\n"
        "    box.exec('echo wide 2')\n"
        "def test_x(box, wide):\n"
        "    box.exec('echo 1')\n"
        "    box.exec('echo 2')\n"
    )
    file.write_text(text)
    project.record().assert_outcomes(passed=1)
    file.write_text(text.replace("    box.exec('echo 2')\n", ""))
    project.replay("-W", "default", FLY_TEST_UNUSED="fail").assert_outcomes(passed=1, errors=1)
    file.write_text(text.replace("    box.exec('echo wide 2')\n", ""))
    for what in ("ignore", "warn", "fail"):
        result = project.replay("-W", "default", FLY_TEST_UNUSED=what)
        result.assert_outcomes(passed=1, warnings=what == "warn", errors=what == "fail")
        told = "fixture wide@test_a.py (session): 1 recorded request(s) were not made"
        assert (told in result.stdout.str()) == (what != "ignore")
        assert ('"echo wide 2"' in result.stdout.str()) == (what != "ignore")


def test_all_fixtures_that_end_at_once_tell_what_they_left_out(project: Project) -> None:
    file = project.path / "test_a.py"
    text = "import pytest\n"
    for scope in ("session", "module", "class"):
        text += (
            f"@pytest.fixture(scope='{scope}')\n"
            f"def of_{scope}(box):\n"
            "    yield\n"
            f"    box.exec('echo end of {scope}')\n"
        )
    text += "def test_x(of_session, of_module, of_class):\n    pass\n"
    file.write_text(text)
    project.record().assert_outcomes(passed=1)
    file.write_text(text.replace("box.exec('echo end", "print('echo end"))
    result = project.replay()
    result.assert_outcomes(passed=1, errors=1)
    for scope in ("session", "module", "class"):
        assert f'"echo end of {scope}"' in result.stdout.str()


def test_a_fixtures_teardown_is_recorded_again_with_a_test_that_uses_it(project: Project) -> None:
    file = project.path / "test_a.py"
    text = (
        "import pytest\n"
        "@pytest.fixture(scope='session')\n"
        "def wide(box):\n"
        "    yield\n"
        "    box.exec('echo end')\n"
        "def test_uses(wide):\n"
        "    pass\n"
        "def test_last(box):\n"
        "    box.exec('echo last')\n"
    )
    file.write_text(text)
    project.record().assert_outcomes(passed=2)
    file.write_text(text.replace("echo end", "echo the end"))
    result = project.replay()
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(
        [
            "*wide@test_a.py (session) (first needed by test_a.py::test_uses) now asks something*",
            "*record it again with: pytest test_a.py::test_uses --fly-record=all",
        ]
    )


def test_a_mixture_of_runs_is_pointed_out(project: Project) -> None:
    """A fixture that found something else than when the test was recorded."""
    file = project.path / "test_a.py"
    text = (
        "import pytest\n"
        "@pytest.fixture(scope='session')\n"
        "def number(box):\n"
        "    return box.exec('echo $COUNT').strip()\n"
        "def test_x(box, number):\n"
        "    box.exec(f'echo {number}')\n"
        "def test_y(box, number):\n"
        "    box.exec(f'echo {number}')\n"
    )
    file.write_text(text)
    project.record().assert_outcomes(passed=2)
    project.record("-k", "test_y").assert_outcomes(passed=1, deselected=1)
    result = project.replay()
    result.assert_outcomes(passed=1, failed=1)
    assert "in another run than" in result.stdout.str()
    assert "record all tests that use it in one run" in result.stdout.str()


SAME_NAMES = """
import unittest
import pytest


def test_here(box):
    assert box.exec("echo {name}") == "{name}\\n"


def test_HERE(box, package):
    assert box.exec("echo {name} " + package.strip()) == "{name} package of {name}\\n"


@pytest.mark.parametrize("word", ["x" * 300 + "1", "x" * 300 + "2"])
def test_long(box, word):
    assert box.exec("echo " + word) == word + "\\n"


class TestUnit(unittest.TestCase):
    @pytest.fixture(autouse=True)
    def given(self, box):
        self.box = box

    def test_here(self):
        self.assertEqual(self.box.exec("echo unit {name}"), "unit {name}\\n")
"""


def test_files_of_one_name_and_what_belongs_to_their_packages_stay_apart(project: Project) -> None:
    for name in ("one", "two"):
        package = project.path / "tests" / name
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")
        (package / "conftest.py").write_text(
            "import pytest\n"
            "@pytest.fixture(scope='package')\n"
            "def package(box):\n"
            f"    yield box.exec('echo package of {name}')\n"
            f"    assert box.exec('echo end of {name}')\n"
        )
        (package / "test_same.py").write_text(SAME_NAMES.replace("{name}", name))
    project.record("-n", "2").assert_outcomes(passed=10)
    names = project.cassettes()
    assert len(names) == len({name.casefold() for name in names}) == 10 + 2 + 1
    assert len([name for name in names if name.startswith("package/tests/")]) == 2
    project.replay("--randomly-seed=3").assert_outcomes(passed=10)
    project.replay("tests/two/test_same.py::test_HERE").assert_outcomes(passed=1)
