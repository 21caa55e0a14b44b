"""Options, environment and ini, and what is said of a wrong value."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_flymachines.options import OPTIONS
from pytest_flymachines.settings import Settings, load, runs_tests

CLEAN: dict[str, str] = {}


def settings(pytester: pytest.Pytester, *args: str, env: dict[str, str] = CLEAN) -> Settings:
    return load(pytester.parseconfig(*args), env)


def test_without_any_option_a_run_replays(pytester: pytest.Pytester) -> None:
    found = settings(pytester)
    assert (found.chosen, found.why) == ("replay", "no --fly-sandbox")
    assert found.cassettes == pytester.path / "cassettes"


@pytest.mark.parametrize(
    ("args", "env", "chosen", "why"),
    [
        (["--fly-sandbox"], {}, "local", "no FLY_API_TOKEN"),
        (["--fly-sandbox"], {"FLY_API_TOKEN": "t"}, "live", "FLY_API_TOKEN"),
        (["--fly-sandbox"], {"FLY_TOKEN": "t"}, "live", "FLY_TOKEN"),
        ([], {"FLY_API_TOKEN": "t"}, "replay", "no --fly-sandbox"),
        (["--fly-mode=local"], {"FLY_API_TOKEN": "t"}, "local", "--fly-mode=local"),
        (["--fly-mode=live"], {"FLY_API_TOKEN": "t"}, "live", "--fly-mode=live"),
        (["--fly-record=once"], {}, "local", "no FLY_API_TOKEN"),
        (["--fly-mode=replay", "--fly-sandbox"], {}, "replay", "--fly-mode=replay"),
    ],
)
def test_the_mode_follows_from_options_and_token(
    pytester: pytest.Pytester, args: list[str], env: dict[str, str], chosen: str, why: str
) -> None:
    found = settings(pytester, *args, env=env)
    assert (found.chosen, found.why) == (chosen, why)


@pytest.mark.parametrize(
    ("args", "runs"),
    [
        ([], True),
        (["--setup-only"], True),
        (["--setup-show"], True),
        (["-p", "no:setupplan", "-p", "no:cacheprovider"], True),
        (["--collect-only"], False),
        (["--setup-plan"], False),
        (["--fixtures"], False),
        (["--fixtures-per-test"], False),
        (["--cache-show"], False),
    ],
)
def test_only_what_runs_tests_is_said_to(
    pytester: pytest.Pytester, args: list[str], runs: bool
) -> None:
    assert runs_tests(pytester.parseconfig(*args)) is runs


def test_command_line_beats_environment_beats_ini(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nfly_app = of-ini\nfly_region = ams\nfly_ttl = 60\n")
    env = {"FLY_APP": "of-env", "FLY_REGION": "lhr"}
    found = settings(pytester, "--fly-app=of-line", env=env)
    assert (found.app, found.region, found.ttl) == ("of-line", ("lhr",), 60)
    assert settings(pytester).app == "of-ini"


def test_every_option_is_an_ini_key_too(pytester: pytest.Pytester) -> None:
    config = pytester.parseconfig()
    for option in OPTIONS:
        assert not config.getini(option.ini)


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["--fly-mode=cloud"], "--fly-mode='cloud': expected one of auto, live, local, replay"),
        (["--fly-engine=qemu"], "--fly-engine='qemu': expected one of auto, bubblewrap, docker"),
        (["--fly-record=new_episodes"], "cannot be joined by a live request"),
        (["--fly-ttl=soon"], "--fly-ttl='soon': expected a whole number of seconds from 10"),
        (["--fly-memory-mb=0"], "--fly-memory-mb='0': expected a whole number of MiB from 256"),
        (["--fly-sandbox", "--fly-memory-mb=300"], "memory_mb=300: expected a multiple of 256"),
        (["--fly-sandbox", "--fly-cpus=3"], "cpus=3: expected one of 1, 2, 4, 6, 8 for shared"),
        (["--fly-region=or d"], "expected region codes separated by commas"),
        (["--fly-budget=nan"], "expected an amount in USD"),
        (["--fly-api-url=api"], "expected a URL that begins with http"),
        (["--fly-sandbox", "--fly-volume-path=data"], "volume_path='data': expected an absolute"),
        (["--fly-sandbox", "--fly-app=Bad_Name"], "app='Bad_Name': expected at most 63 characters"),
        (["--fly-mode=live"], "needs a token in FLY_API_TOKEN"),
        (["--fly-mode=replay", "--fly-record=all"], "needs a machine"),
    ],
)
def test_a_wrong_value_names_itself_and_what_is_accepted(
    pytester: pytest.Pytester, args: list[str], named: str
) -> None:
    config = pytester.parseconfig(*args)
    with pytest.raises(pytest.UsageError) as caught:
        load(config, CLEAN)
    assert named in str(caught.value)


def test_a_wrong_environment_variable_or_ini_key_is_named(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nfly_share = everybody\n")
    config = pytester.parseconfig()
    with pytest.raises(pytest.UsageError, match="ini fly_share='everybody'"):
        load(config, CLEAN)
    with pytest.raises(pytest.UsageError, match="environment variable FLY_REGION='o r'"):
        load(config, {"FLY_REGION": "o r"})


def test_what_would_take_everything_along_is_no_secret_to_name_while_recording(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeini("[pytest]\nfly_scrub =\n    FLY_ORG\n")
    common = {**CLEAN, "FLY_ORG": "main"}
    with pytest.raises(pytest.UsageError, match="fly_scrub: 'FLY_ORG' cannot be kept out"):
        load(pytester.parseconfig("--fly-mode=local", "--fly-record=all"), common)
    assert load(pytester.parseconfig("--fly-mode=local"), common).scrub == ("FLY_ORG",)


def test_a_directory_that_cannot_be_written_is_refused_before_anything_runs(
    pytester: pytest.Pytester,
) -> None:
    pytester.path.joinpath("file").write_text("")
    pytester.path.joinpath("gone").symlink_to("/nowhere/at/all")
    pytester.path.joinpath("full").mkdir()
    for where in ("file", "file/below", "gone", "gone/below"):
        given = ("--fly-mode=local", f"--fly-cassettes={where}")
        with pytest.raises(pytest.UsageError, match="expected a directory that can be written"):
            settings(pytester, *given, "--fly-record=all")
        settings(pytester, *given)
    for where in ("full", "full/new/one", "."):
        settings(pytester, "--fly-record=all", f"--fly-cassettes={where}")


def test_the_token_is_not_in_the_repr_and_not_kept_where_none_is_needed(
    pytester: pytest.Pytester,
) -> None:
    live = settings(pytester, "--fly-sandbox", env={"FLY_API_TOKEN": "fm2_secret"})
    assert live.token == "fm2_secret"
    assert "fm2_secret" not in repr(live)
    assert settings(pytester, "--fly-mode=local", env={"FLY_API_TOKEN": "x"}).token == ""


def test_inside_fly_the_private_api_is_the_default(pytester: pytest.Pytester) -> None:
    assert settings(pytester).api_url == "https://api.machines.dev"
    env = {"FLY_MACHINE_ID": "d8d9e1b2c45678"}
    assert settings(pytester, env=env).api_url == "http://_api.internal:4280"


def test_a_path_below_the_rootdir_means_the_same_on_another_computer(
    pytester: pytest.Pytester,
) -> None:
    (pytester.path / "sub").mkdir()
    inside = settings(pytester, f"--fly-repo={pytester.path}/sub").spec()
    assert inside.repo == "sub"
    outside = Path(pytester.path.root) / "elsewhere"
    assert settings(pytester, f"--fly-repo={outside}").spec().repo == str(outside)
