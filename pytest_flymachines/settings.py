"""Options, environment and ini: one frozen `Settings`.

Each option exists as `--fly-x`, as ini key `fly_x`, and, where flyctl users already have
one, as environment variable. Order: command line, environment, ini, default.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

if TYPE_CHECKING:
    from pytest_flymachines.spec import SandboxSpec

__all__ = ["OPTIONS", "Option", "Settings", "add_options", "from_command_line", "load"]

TOKEN_VARIABLES = ("FLY_API_TOKEN", "FLY_ACCESS_TOKEN", "FLY_TOKEN")
PUBLIC_API = "https://api.machines.dev"
PRIVATE_API = "http://_api.internal:4280"

Parse = Callable[[str], Any]


class _Refused(ValueError):
    """The text says what is accepted."""


def _choice(*names: str) -> Parse:
    def parse(text: str) -> str:
        if text not in names:
            raise _Refused(f"one of {', '.join(names)}")
        return text

    return parse


def _record(text: str) -> str:
    if text == "new_episodes":
        raise _Refused(
            "one of none, once, all. VCR's new_episodes is not accepted: a replayed machine "
            "cannot be joined by a live request; record the whole test again with all"
        )
    return str(_choice("none", "once", "all")(text))


def _number(kind: type, least: float, meaning: str) -> Parse:
    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            raise _Refused(meaning) from None
        if not least <= value < float("inf"):
            raise _Refused(meaning)
        return value

    return parse


def _text(meaning: str) -> Parse:
    def parse(text: str) -> str:
        if not text.strip():
            raise _Refused(meaning)
        return text.strip()

    return parse


def _regions(text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    if not names or not all(name.isascii() and name.isalnum() for name in names):
        raise _Refused("region codes separated by commas, such as ord,iad")
    return names


def _url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise _Refused("a URL that begins with http:// or https://")
    return text.rstrip("/")


@dataclass(frozen=True)
class Option:
    """One option; `name` without `fly_` prefix is that of the field in `Settings`."""

    name: str
    help: str
    parse: Parse | None = None
    default: Any = None
    env: tuple[str, ...] = ()
    metavar: str | None = None

    @property
    def flag(self) -> str:
        """On the command line."""
        return "--fly-" + self.name.replace("_", "-")

    @property
    def ini(self) -> str:
        """In the ini file."""
        return "fly_" + self.name


OPTIONS = (
    Option("sandbox", "run sandbox tests on machines instead of replaying them", default=False),
    Option(
        "mode",
        "what answers: auto (live with a token, else local; replay without --fly-sandbox), "
        "live, local or replay; live and local imply --fly-sandbox",
        _choice("auto", "live", "local", "replay"),
        "auto",
        metavar="MODE",
    ),
    Option(
        "record",
        "write cassettes for the tests that ran and passed: none, once (where none exists "
        "yet) or all; implies --fly-sandbox",
        _record,
        "none",
        metavar="MODE",
    ),
    Option("cassettes", "directory of the cassettes", _text("a directory"), None, metavar="DIR"),
    Option(
        "missing_cassette",
        "replay: what becomes of a test without cassette: skip or fail",
        _choice("skip", "fail"),
        "skip",
        metavar="ACTION",
    ),
    Option(
        "unused",
        "replay: recorded requests that nobody made: ignore, warn or fail",
        _choice("ignore", "warn", "fail"),
        "ignore",
        metavar="ACTION",
    ),
    Option("app", "Fly app of the machines", _text("an app name"), "cook-sandbox", ("FLY_APP",)),
    Option(
        "org",
        "organization in which a missing app is made",
        _text("an organization slug"),
        None,
        ("FLY_ORG",),
    ),
    Option(
        "region", "region codes, tried in turn", _regions, ("ord",), ("FLY_REGION",), "CODE[,CODE]"
    ),
    Option("image", "OCI image of the machines", _text("an OCI image reference"), None),
    Option(
        "cpu_kind", "shared or performance", _choice("shared", "performance"), None, metavar="KIND"
    ),
    Option("cpus", "number of cpus", _number(int, 1, "a whole number from 1"), None, metavar="N"),
    Option(
        "memory_mb",
        "memory in MiB",
        _number(int, 256, "a whole number of MiB from 256, in steps of 256"),
        None,
        metavar="MIB",
    ),
    Option(
        "repo",
        "git repository to clone into the workspace: a URL, or a local path (. tests the "
        "work tree as it is)",
        _text("a URL or a path"),
        None,
        metavar="URL|PATH",
    ),
    Option("ref", "branch, tag or commit", _text("a git ref"), None),
    Option(
        "volume_gb",
        "size of an encrypted volume that lives as long as the machine; 0 is none",
        _number(int, 0, "a whole number of GB from 0 (none) to 500"),
        0,
        metavar="GB",
    ),
    Option("volume_path", "where the volume is mounted", _text("an absolute path"), "/data"),
    Option(
        "agent",
        "cook-agent: auto (on the image's PATH, else bundled), off, or the path of a program",
        _text("auto, off or a path"),
        "auto",
        ("COOK_AGENT_PATH",),
        "auto|off|PATH",
    ),
    Option(
        "agent_expose",
        "token (only our agent, with its per-run token) or public (allow an agent without "
        "authentication on the app's public port)",
        _choice("token", "public"),
        "token",
        metavar="HOW",
    ),
    Option(
        "share",
        "run (one machine per spec for all workers) or worker (one for each)",
        _choice("run", "worker"),
        "run",
        metavar="WITH",
    ),
    Option(
        "machine",
        "id of a machine that exists: attach to it, never destroy it",
        _text("a machine id"),
        None,
        metavar="ID",
    ),
    Option(
        "keep",
        "leave the machine behind: never, failed or always",
        _choice("never", "failed", "always"),
        "never",
        metavar="WHEN",
    ),
    Option(
        "ttl",
        "seconds after the last sign of life from the run until a machine ends itself",
        _number(int, 10, "a whole number of seconds from 10"),
        1800,
        metavar="SECONDS",
    ),
    Option(
        "on_lost",
        "what happens when a machine dies under the run: fail or relaunch",
        _choice("fail", "relaunch"),
        "fail",
        metavar="ACTION",
    ),
    Option(
        "budget",
        "refuse to launch beyond this estimated cost",
        _number(float, 0, "an amount in USD from 0"),
        None,
        metavar="USD",
    ),
    Option("run_id", "CI shards with the same id share machines", _text("an id"), None),
    Option(
        "engine",
        "local mode: auto, bubblewrap, docker or process",
        _choice("auto", "bubblewrap", "docker", "process"),
        "auto",
    ),
    Option(
        "api_url",
        "base URL of the Machines API",
        _url,
        None,
        ("FLY_FLAPS_BASE_URL", "FLY_API_HOSTNAME"),
        "URL",
    ),
)

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off", ""}


@dataclass(frozen=True, kw_only=True)
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
    token: str = field(repr=False)
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


def load(config: pytest.Config, environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings of this run.

    Raises:
        pytest.UsageError: A value is not accepted; names the option, the value, what is.
    """
    values = {option.name: _value(option, config, environ) for option in OPTIONS}
    return _settled(values, tuple(config.getini("fly_scrub")), config.rootpath, environ)


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
    token = next((environ[name] for name in TOKEN_VARIABLES if environ.get(name)), "")
    found = next((name for name in TOKEN_VARIABLES if environ.get(name)), "")
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
        proxy_url=environ.get("FLY_EMULATOR_PROXY_URL", ""),
        scrub=scrub,
        rootdir=rootdir,
    )
    if chosen != "replay":
        try:
            settings.spec()
        except ValueError as error:
            raise pytest.UsageError(f"fly sandbox options: {error}") from None
    return settings


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
    except _Refused as accepted:
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
