"""Bad input gets a clear error, and leaves nothing behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .conftest import Run

ONE_TEST = "def test_it(fly_sandbox): fly_sandbox.exec('true')"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--fly-engine=qemu"], "*--fly-engine='qemu': expected one of auto, bubblewrap*"),
        (["--fly-memory-mb=0"], "*--fly-memory-mb='0': expected a whole number of MiB*"),
        (["--fly-app=No_Such"], "*app='No_Such': expected at most 63 characters*"),
    ],
)
def test_a_wrong_option_ends_the_run_before_it_starts(
    pytester: pytest.Pytester, run: Run, args: list[str], said: str
) -> None:
    pytester.makepyfile(ONE_TEST)
    result = run(*args)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([said])


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--fly-repo=nowhere"], "*repo='nowhere': no directory *nowhere*"),
        (["--fly-repo=."], "*is not a git work tree with at least one commit*"),
        (["--fly-repo=https://127.0.0.1:1/x.git"], "*cloning https://127.0.0.1:1/x.git failed*"),
        (["--fly-repo=https://u:pw@example.com/x"], "*put the token into FLY_GIT_TOKEN*"),
    ],
)
def test_a_repository_that_cannot_be_had_is_named(
    pytester: pytest.Pytester, run: Run, args: list[str], said: str
) -> None:
    pytester.makepyfile(ONE_TEST)
    result = run(*args)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([said])


def test_a_ref_that_does_not_exist_is_named(
    pytester: pytest.Pytester, run: Run, repository: Path
) -> None:
    pytester.makepyfile(ONE_TEST)
    result = run("--fly-repo=project", "--fly-ref=nowhere")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*nowhere*"])


def test_a_misspelt_field_of_the_spec_is_named(pytester: pytest.Pytester, run: Run) -> None:
    pytester.makeconftest(
        """
        import pytest
        @pytest.fixture(scope="session")
        def fly_sandbox_spec(fly_sandbox_spec):
            return fly_sandbox_spec.replace(memory=512)
        """
    )
    pytester.makepyfile(ONE_TEST)
    result = run()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*no field 'memory'; did you mean 'memory_mb'?*"])


def test_an_image_without_git_says_so(pytester: pytest.Pytester, run: Run) -> None:
    pytester.makeconftest(
        """
        import pytest
        @pytest.fixture(scope="session")
        def fly_sandbox_spec(fly_sandbox_spec):
            return fly_sandbox_spec.replace(setup=["rm -f $(command -v git)", "git --version"])
        """
    )
    pytester.makepyfile(ONE_TEST)
    result = run()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*the setup command ended with exit code 127: git --version*"])


def test_a_full_disk_in_the_machine_is_an_error_of_that_write_alone(
    pytester: pytest.Pytester, run: Run
) -> None:
    pytester.makepyfile(
        """
        import errno, pytest

        def test_it(fly_sandbox):
            with pytest.raises(OSError) as caught:
                fly_sandbox.write_file("/dev/full", b"x")
            assert caught.value.errno in (errno.ENOSPC, errno.EACCES, errno.EPERM)
            assert fly_sandbox.exec("echo alive").stdout == "alive\\n"
        """
    )
    run().assert_outcomes(passed=1)


def test_wrong_token_and_missing_app_say_what_to_do(
    pytester: pytest.Pytester, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pytest_flymachines.emulator.launch import launch

    pytester.makepyfile(ONE_TEST)
    with launch() as emulator:
        monkeypatch.setenv("FLY_FLAPS_BASE_URL", emulator.api_url)
        monkeypatch.setenv("FLY_EMULATOR_PROXY_URL", emulator.proxy_url)
        monkeypatch.setenv("FLY_API_TOKEN", "wrong-token-value")
        result = run("--fly-app=mine", mode="live")
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines(["*401*", "*fly tokens create deploy*"])
        result.stdout.no_fnmatch_line("*wrong-token-value*")
        monkeypatch.setenv("FLY_API_TOKEN", emulator.token)
        result = run("--fly-app=mine", mode="live")
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines(["*app 'mine' does not exist*", "*fly apps create mine*"])
        run("--fly-app=mine", "--fly-org=personal", mode="live").assert_outcomes(passed=1)


def test_an_unreachable_api_is_named(
    pytester: pytest.Pytester, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLY_API_TOKEN", "t")
    pytester.makepyfile(ONE_TEST)
    result = run("--fly-api-url=http://127.0.0.1:9", mode="live")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*127.0.0.1:9*"])
    assert "FLY_API_TOKEN" in os.environ
