"""What a newcomer does first: a test asks for `fly_sandbox` and runs commands in it."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from .conftest import Run, commit, git


def test_a_test_runs_commands_on_a_machine_that_is_not_this_computer(
    pytester: pytest.Pytester, run: Run
) -> None:
    pytester.makepyfile(
        f"""
        import os

        def test_it(fly_sandbox):
            assert fly_sandbox.exec("hostname").stdout.strip() == fly_sandbox.machine_id
            assert {socket.gethostname()!r} not in fly_sandbox.exec("hostname").stdout
            assert fly_sandbox.exec("id -u").stdout == "0\\n"
            inside = fly_sandbox.exec("ls /proc").stdout.split()
            assert str(os.getpid()) not in [p for p in inside if p.isdecimal()][5:]
            assert fly_sandbox.exec("echo $FLY_MACHINE_ID").stdout.strip() == fly_sandbox.machine_id
            assert not fly_sandbox.exists({str(Path(__file__).resolve())!r})
        """
    )
    result = run(others=True)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["fly sandbox: local (--fly-mode=local), engine *"])


def test_the_work_tree_arrives_as_it_is(
    pytester: pytest.Pytester, run: Run, repository: Path
) -> None:
    (repository / "uncommitted.txt").write_text("new\n")
    (repository / "hello.txt").write_text("changed\n")
    pytester.makepyfile(
        """
        def test_it(fly_sandbox):
            assert fly_sandbox.read_text("hello.txt") == "changed\\n"
            assert fly_sandbox.read_text("uncommitted.txt") == "new\\n"
            assert fly_sandbox.exec("git status --porcelain").stdout == (
                " M hello.txt\\n?? uncommitted.txt\\n"
            )
            assert fly_sandbox.exec("pwd").stdout.strip() == fly_sandbox.workdir
        """
    )
    run("--fly-repo=project").assert_outcomes(passed=1)


def test_a_url_is_cloned_at_a_ref_with_depth_and_submodules(
    pytester: pytest.Pytester, run: Run, repository: Path
) -> None:
    """The URL is a file URL, which the process engine's machine can read."""
    git(repository, "tag", "v1")
    (repository / "hello.txt").write_text("later\n")
    commit(repository, "second")
    pytester.makeconftest(
        f"""
        import pytest
        @pytest.fixture(scope="session")
        def fly_sandbox_spec(fly_sandbox_spec):
            return fly_sandbox_spec.replace(repo={repository.as_uri()!r}, ref="v1", depth=1)
        """
    )
    pytester.makepyfile(
        """
        def test_it(fly_sandbox):
            assert fly_sandbox.read_text("hello.txt") == "hello\\n"
            assert fly_sandbox.exec("git rev-list --count HEAD").stdout == "1\\n"
        """
    )
    run("--fly-engine=process").assert_outcomes(passed=1)


def test_files_and_results_come_through_exactly(pytester: pytest.Pytester, run: Run) -> None:
    pytester.makepyfile(
        """
        import pytest
        from pytest_flymachines import CommandFailed, CommandTimeout, SandboxFileNotFound

        def test_files(fly_sandbox):
            data = bytes(range(256)) * 1000
            fly_sandbox.write_file("a dir/odd\\nname", data)
            assert fly_sandbox.read_file("a dir/odd\\nname") == data
            assert [f.name for f in fly_sandbox.list_files("a dir")] == ["odd\\nname"]
            assert fly_sandbox.stat("a dir/odd\\nname").size == len(data)
            fly_sandbox.mkdir("x/y", parents=True)
            fly_sandbox.remove("x", recursive=True)
            assert not fly_sandbox.exists("x")
            with pytest.raises(FileNotFoundError) as caught:
                fly_sandbox.read_file("nowhere")
            assert isinstance(caught.value, SandboxFileNotFound)

        def test_results(fly_sandbox):
            result = fly_sandbox.exec("echo out; echo err >&2; exit 3", check=False)
            assert (result.exit_code, result.stdout, result.stderr) == (3, "out\\n", "err\\n")
            assert not result
            with pytest.raises(CommandFailed, match="exit code 3"):
                fly_sandbox.exec("exit 3")
            for timeout in (1, 4, 16):  # a computer that is busy may need more
                with pytest.raises(TimeoutError) as caught:
                    fly_sandbox.exec("echo so far; sleep 60", timeout=timeout)
                if "\\nso far" in str(caught.value):
                    break
            assert isinstance(caught.value, CommandTimeout)
            assert "\\nso far" in str(caught.value)
            assert "sleep 60" not in fly_sandbox.exec("ps ax").stdout

        def test_big_output(fly_sandbox):
            result = fly_sandbox.exec("head -c 50000000 /dev/zero | tr '\\\\0' x")
            assert len(result.stdout) == 50000000
            assert not result.stdout_truncated

        def test_status(fly_sandbox):
            status = fly_sandbox.status()
            assert (status.state, status.machine_id) == ("running", fly_sandbox.machine_id)
        """
    )
    run().assert_outcomes(passed=4)


def test_without_options_and_cassettes_it_skips_and_says_how_to_run_it(
    pytester: pytest.Pytester, run: Run
) -> None:
    pytester.makepyfile("def test_it(fly_sandbox): fly_sandbox.exec('true')")
    result = run(mode="")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(
        ["*skipped 1 test(s) that were never recorded*", "*SKIPPED*never recorded*"]
    )
    result.stdout.fnmatch_lines(["*pytest --fly-sandbox*"])


@pytest.mark.parametrize("option", ["--collect-only", "--setup-plan", "--fixtures-per-test"])
def test_what_only_looks_at_the_tests_starts_nothing(
    pytester: pytest.Pytester, run: Run, option: str
) -> None:
    pytester.makepyfile("def test_it(fly_sandbox): fly_sandbox.exec('true')")
    result = run(option, "--fly-record=all")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["fly sandbox: local (*"])
    result.stdout.no_fnmatch_line("*engine*")
    assert not (pytester.path / "cassettes").exists()


FAILING = """
    import unittest
    import pytest

    def test_exec(fly_sandbox):
        fly_sandbox.exec("echo said; exit 4")

    def test_file(fly_sandbox):
        try:
            {}["users"]
        finally:
            fly_sandbox.read_text("missing")

    def test_user(fly_sandbox):
        fly_sandbox.exec("true", user="nosuch")

    def test_group(fly_sandbox):
        try:
            fly_sandbox.restore("nothing")
        except LookupError as error:
            raise ExceptionGroup("all", [error])

    class TestOld(unittest.TestCase):
        @pytest.fixture(autouse=True)
        def given(self, fly_sandbox):
            self.sandbox = fly_sandbox

        def test_old(self):
            self.sandbox.remove("missing")

    @pytest.fixture
    def left(fly_sandbox):
        yield
        fly_sandbox.remove("left")

    def test_teardown(left):
        pass

    @pytest.mark.fly_sandbox(memory_mb=-3)
    def test_mark(fly_workspace):
        pass
"""


@pytest.mark.parametrize(
    ("options", "style"),
    [
        ((), "long"),
        (("--fly-agent=off",), "native"),
        (("--fly-agent=off", "--junitxml=junit.xml"), "short"),
    ],
    ids=["agent", "api", "junitxml"],
)
def test_a_failure_shows_the_line_of_the_test_and_nothing_of_ours(
    pytester: pytest.Pytester, run: Run, options: tuple[str, ...], style: str
) -> None:
    pytester.makepyfile(FAILING)
    result = run(*options, f"--tb={style}")
    result.assert_outcomes(failed=5, passed=1, errors=2)
    text = result.stdout.str() + "".join(p.read_text() for p in pytester.path.glob("junit.xml"))
    for line in (
        'fly_sandbox.exec("echo said; exit 4")',
        "(exit code 4)",
        "said",
        "KeyError: 'users'",
        'fly_sandbox.read_text("missing")',
        'fly_sandbox.exec("true", user="nosuch")',
        'fly_sandbox.restore("nothing")',
        'self.sandbox.remove("missing")',
        'fly_sandbox.remove("left")',
        "SettingsError: memory_mb=-3",
    ):
        assert line in text
    for inside in ("pytest_flymachines/", "RunnerFailed", "contextlib.py", "entries are hidden"):
        assert inside not in text


def test_full_trace_shows_all_of_a_failure(pytester: pytest.Pytester, run: Run) -> None:
    pytester.makepyfile("def test_it(fly_sandbox): fly_sandbox.exec('exit 4')")
    assert "def check_returncode" in run("--full-trace").stdout.str()


def test_a_debugger_stops_at_the_line_of_the_test(pytester: pytest.Pytester) -> None:
    """pytest's own starts from the innermost frame, which would be one of this package."""
    pytester.makepyfile(
        """
        def test_it(fly_sandbox):
            mine = "of the test"
            fly_sandbox.exec("exit 4")
        """
    )
    command = [sys.executable, "-m", "pytest", "--fly-mode=local", "--fly-engine=process", "--pdb"]
    typed = b"p mine, __name__\nq\n"
    for options, line in ([], "('of the test', 'test_"), (["--full-trace"], "NameError"):
        shown = pytester.run(*command, *options, stdin=typed).stdout.str()
        assert line in shown


def test_the_plugin_imports_nothing_heavy_until_a_sandbox_is_asked_for(
    pytester: pytest.Pytester, run: Run
) -> None:
    pytester.makepyfile(
        """
        import sys

        HEAVY = {"httpx", "httpcore", "vcr", "msgspec", "stamina", "filelock", "click",
                 "starlette", "uvicorn", "docker", "pyte", "asyncio"}

        def test_it():
            assert not HEAVY & set(sys.modules)
            ours = {name for name in sys.modules if name.startswith("pytest_flymachines")}
            assert ours <= {"pytest_flymachines", "pytest_flymachines.plugin",
                            "pytest_flymachines.settings", "pytest_flymachines.options"}
        """
    )
    run(mode="", new=True).assert_outcomes(passed=1)


def test_a_run_attaches_to_a_machine_that_exists_and_leaves_it_alone(
    pytester: pytest.Pytester, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pytest_flymachines.api import MachinesClient
    from pytest_flymachines.emulator.launch import launch

    with launch(apps=["mine"]) as emulator:
        monkeypatch.setenv("FLY_API_TOKEN", emulator.token)
        monkeypatch.setenv("FLY_FLAPS_BASE_URL", emulator.api_url)
        monkeypatch.setenv("FLY_EMULATOR_PROXY_URL", emulator.proxy_url)
        with MachinesClient(emulator.token, base_url=emulator.api_url) as client:
            config = {"image": "debian:12", "init": {"exec": ["sleep", "600"]}}
            machine = client.create_machine("mine", config)
            client.wait("mine", machine.id, "started")
            pytester.makepyfile(
                f"""
                def test_it(fly_sandbox):
                    assert fly_sandbox.machine_id == {machine.id!r}
                    assert fly_sandbox.exec("echo $FLY_APP_NAME").stdout == "mine\\n"
                """
            )
            named = ["--fly-app=mine", f"--fly-machine={machine.id}"]
            run(*named, mode="live").assert_outcomes(passed=1)
            assert client.get_machine("mine", machine.id).state == "started"


def test_the_environment_of_a_user_is_not_needed(pytester: pytest.Pytester, run: Run) -> None:
    """`HOME` may be missing, as in some containers."""
    os.environ.pop("HOME", None)
    pytester.makepyfile("def test_it(fly_sandbox): assert fly_sandbox.exec('echo $HOME').ok")
    run().assert_outcomes(passed=1)
