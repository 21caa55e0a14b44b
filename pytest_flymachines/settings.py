"""Options, environment and ini: one frozen `Settings`.

Order: command line, environment, ini, default. What can be asked for is in `options.py`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from pytest_flymachines.options import OPTIONS, TOKEN_VARIABLES, Option, Refused, token_in

if TYPE_CHECKING:
    from pytest_flymachines.spec import SandboxSpec

__all__ = [
    "Settings",
    "add_options",
    "environment_for_workers",
    "from_command_line",
    "load",
    "runs_tests",
]

PUBLIC_API = "https://api.machines.dev"
PRIVATE_API = "http://_api.internal:4280"

_PROXY_URL = "FLY_EMULATOR_PROXY_URL"
_API_URL = "FLY_FLAPS_BASE_URL"
#: Variables that say the same as options, or what options cannot.
ENVIRONMENT = frozenset(
    [*TOKEN_VARIABLES, _PROXY_URL, *(name for option in OPTIONS for name in option.env)]
)

# pytest's, each of which makes a session; some are of plugins that may be blocked
_LOOKS_ONLY = ("collectonly", "setupplan", "showfixtures", "show_fixtures_per_test", "cacheshow")

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off", ""}


# every pytest run pays for what a dataclass generates
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Settings:
    """What the user asked for. Fields are named after the options (see `OPTIONS`).

    Attributes (beside those of the options):
        chosen: `live`, `local` or `replay`: what `mode` comes to.
        why: Why that one, for the header.
        token: The API token; empty in local and replay mode. Never shown.
        proxy_url: Where `<app>.fly.dev` answers when the API is a stand-alone emulator, which
            prints it (`FLY_EMULATOR_PROXY_URL`); empty: at Fly.
        scrub: Values and names that never go into a cassette, from ini `fly_scrub`.
        rootdir: pytest's rootdir.
    """

    sandbox: bool
    mode: str
    record: Literal["none", "once", "all"]
    cassettes: Path
    missing_cassette: Literal["skip", "fail"]
    unused: Literal["ignore", "warn", "fail"]
    app: str
    org: str | None
    region: tuple[str, ...]
    image: str | None
    cpu_kind: str | None
    cpus: int | None
    memory_mb: int | None
    repo: str | None
    ref: str | None
    volume_gb: int
    volume_path: str
    agent: str
    agent_expose: str
    share: Literal["run", "worker"]
    machine: str | None
    keep: Literal["never", "failed", "always"]
    ttl: int
    on_lost: Literal["fail", "relaunch"]
    budget: float | None
    run_id: str | None
    engine: str
    api_url: str
    chosen: Literal["live", "local", "replay"]
    why: str
    token: str
    proxy_url: str
    scrub: tuple[str, ...]
    rootdir: Path

    def spec(self, **changes: Any) -> SandboxSpec:
        """The spec that these settings describe, with some fields changed.

        Raises:
            SettingsError: A field does not exist or its value is not accepted.
        """
        from pytest_flymachines.spec import SandboxSpec

        given = {
            name: getattr(self, name)
            for name in ("image", "cpu_kind", "cpus", "memory_mb")
            if getattr(self, name) is not None
        }
        spec = SandboxSpec(
            app=self.app,
            org=self.org,
            regions=self.region,
            repo=self._portable(self.repo),
            ref=self.ref,
            agent=self.agent,
            agent_expose=self.agent_expose,
            volume_gb=self.volume_gb,
            volume_path=self.volume_path,
            **given,
        )
        return spec.replace(**changes) if changes else spec

    def _portable(self, repo: str | None) -> str | None:
        """A path inside the rootdir relative to it, so that it means the same elsewhere."""
        if repo is None or not Path(repo).is_absolute():
            return repo
        path = Path(repo).resolve()
        return str(path.relative_to(self.rootdir)) if path.is_relative_to(self.rootdir) else repo


def add_options(parser: pytest.Parser) -> None:
    """Register every option on the command line and as ini key."""
    group = parser.getgroup("fly", "sandboxes on Fly.io Machines")
    for option in OPTIONS:
        if option.parse is None:
            group.addoption(option.flag, action="store_true", default=None, help=option.help)
        else:
            group.addoption(
                option.flag, default=None, metavar=option.metavar or "VALUE", help=option.help
            )
        parser.addini(option.ini, f"see {option.flag}")
    parser.addini("fly_scrub", "values that never go into a cassette", type="linelist", default=[])


def environment_for_workers(
    settings: Settings, environ: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """What a worker on another computer must find in its environment, to settle the same way."""
    given = {name: environ[name] for name in ENVIRONMENT if environ.get(name)}
    return given | {_API_URL: settings.api_url}


def load(config: pytest.Config, environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings of this run; of a worker on another computer, those of its controller.

    Raises:
        pytest.UsageError: A value is not accepted; names the option, the value, what is.
    """
    told = getattr(config, "workerinput", {}).get("flymachines_environment")
    if told is not None:
        environ = {name: environ[name] for name in environ if name not in ENVIRONMENT} | told
    values = {option.name: _value(option, config, environ) for option in OPTIONS}
    return _settled(values, tuple(config.getini("fly_scrub")), config.rootpath, environ)


def runs_tests(config: pytest.Config) -> bool:
    """Whether tests are run at all: not where pytest only looks at them, or at fixtures."""
    return not any(config.getoption(name, default=False) for name in _LOOKS_ONLY)


def from_command_line(
    args: Sequence[str], environ: Mapping[str, str] = os.environ, rootdir: Path | None = None
) -> Settings:
    """The settings for machines outside of a test run, as `--fly-sandbox` and `args` say.

    Raises:
        pytest.UsageError: An option is not known, or a value is not accepted.
    """
    flags = {option.flag: option for option in OPTIONS if option.parse is not None}
    values = {option.name: _given(option, None, environ) for option in OPTIONS}
    for arg in args:
        flag, separator, text = arg.partition("=")
        if flag not in flags or not separator:
            raise pytest.UsageError(f"{arg!r}: expected {', '.join(flags)}, each with =VALUE")
        values[flags[flag].name] = _parsed(flags[flag], text, flag)
    values["sandbox"] = True
    return _settled(values, (), rootdir or Path.cwd(), environ)


def _settled(
    values: dict[str, Any], scrub: tuple[str, ...], rootdir: Path, environ: Mapping[str, str]
) -> Settings:
    """What follows from the values: mode, token, addresses."""
    found, token = token_in(environ)
    chosen, why = _choose(values, found)
    values["cassettes"] = rootdir / (values["cassettes"] or "cassettes")
    values["api_url"] = values["api_url"] or (
        PRIVATE_API if environ.get("FLY_MACHINE_ID") else PUBLIC_API
    )
    settings = Settings(
        **values,
        chosen=chosen,
        why=why,
        token=token if chosen == "live" else "",
        proxy_url=environ.get(_PROXY_URL, ""),
        scrub=scrub,
        rootdir=rootdir,
    )
    if settings.record != "none":
        _check_writable(settings.cassettes)
    if settings.record != "none" and scrub:
        # not for runs that record nothing: it takes its time to import
        from pytest_flymachines.common_values import check_named

        for entry in scrub:
            try:
                check_named(entry, environ.get(entry, entry))
            except ValueError as error:
                raise pytest.UsageError(str(error)) from None
    if chosen != "replay":
        try:
            settings.spec()
        except ValueError as error:
            raise pytest.UsageError(f"fly sandbox options: {error}") from None
    return settings


def _check_writable(cassettes: Path) -> None:
    """Refuse a directory before machines are paid for whose answers cannot be written there."""
    there = next(path for path in (cassettes, *cassettes.parents) if os.path.lexists(path))
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise pytest.UsageError(
            f"--fly-cassettes={str(cassettes)!r}: expected a directory that can be written to, "
            f"because --fly-record was given, and {there} is none"
        )


def _value(option: Option, config: pytest.Config, environ: Mapping[str, str]) -> Any:
    """One option from the first place that has it."""
    given = config.getoption("fly_" + option.name)
    ini = str(config.getini(option.ini) or "")
    if option.parse is None:
        return bool(given) or _switch(option, ini)
    if given is not None:
        return _parsed(option, str(given), option.flag)
    return _given(option, ini, environ)


def _given(option: Option, ini: str | None, environ: Mapping[str, str]) -> Any:
    """From the environment, else the ini file, else the default."""
    for name in option.env:
        if environ.get(name):
            return _parsed(option, environ[name], f"environment variable {name}")
    return _parsed(option, ini, f"ini {option.ini}") if ini else option.default


def _switch(option: Option, text: str) -> bool:
    if text.lower() not in _TRUE | _FALSE:
        raise pytest.UsageError(f"ini {option.ini}={text!r}: expected true or false")
    return text.lower() in _TRUE


def _parsed(option: Option, text: str, place: str) -> Any:
    assert option.parse is not None
    try:
        return option.parse(text)
    except Refused as accepted:
        raise pytest.UsageError(f"{place}={text!r}: expected {accepted}") from None


def _choose(
    values: dict[str, Any], token_from: str
) -> tuple[Literal["live", "local", "replay"], str]:
    """The mode, and why."""
    mode, record = values["mode"], values["record"]
    if mode == "replay":
        if record != "none":
            raise pytest.UsageError(
                f"--fly-record={record} needs a machine, and --fly-mode=replay uses none: "
                "leave one of them out"
            )
        return "replay", "--fly-mode=replay"
    if mode == "live" and not token_from:
        raise pytest.UsageError(
            "--fly-mode=live needs a token in FLY_API_TOKEN (or FLY_ACCESS_TOKEN, FLY_TOKEN); "
            "`fly tokens create deploy -a <app>` makes one. Without a token use --fly-mode=local"
        )
    if mode == "live":
        return "live", "--fly-mode=live"
    if mode == "local":
        return "local", "--fly-mode=local"
    if not values["sandbox"] and record == "none":
        return "replay", "no --fly-sandbox"
    return ("live", token_from) if token_from else ("local", "no FLY_API_TOKEN")
