"""What can be asked for: each option once, with what it accepts.

Each exists as `--fly-x`, as ini key `fly_x`, and, where flyctl users already have one, as
environment variable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

__all__ = ["OPTIONS", "TOKEN_VARIABLES", "Option", "Refused", "token_in"]

#: Where tokens come from, in this order; never from an option or ini: both end up in logs.
TOKEN_VARIABLES = ("FLY_API_TOKEN", "FLY_ACCESS_TOKEN", "FLY_TOKEN")

Parse = Callable[[str], Any]


class Refused(ValueError):
    """A value is not accepted; the text says what is."""


def _choice(*names: str) -> Parse:
    def parse(text: str) -> str:
        if text not in names:
            raise Refused(f"one of {', '.join(names)}")
        return text

    return parse


def _record(text: str) -> str:
    if text == "new_episodes":
        raise Refused(
            "one of none, once, all. VCR's new_episodes is not accepted: a replayed machine "
            "cannot be joined by a live request; record the whole test again with all"
        )
    return str(_choice("none", "once", "all")(text))


def _number(kind: type, least: float, meaning: str) -> Parse:
    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            raise Refused(meaning) from None
        if not least <= value < float("inf"):
            raise Refused(meaning)
        return value

    return parse


def _text(meaning: str) -> Parse:
    def parse(text: str) -> str:
        if not text.strip():
            raise Refused(meaning)
        return text.strip()

    return parse


def _regions(text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    if not names or not all(name.isascii() and name.isalnum() for name in names):
        raise Refused("region codes separated by commas, such as ord,iad")
    return names


def _url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise Refused("a URL that begins with http:// or https://")
    return text.rstrip("/")


class Option(NamedTuple):
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


def token_in(environ: Mapping[str, str]) -> tuple[str, str]:
    """The variable that holds a token, and the token; two empty texts where none does."""
    name = next((name for name in TOKEN_VARIABLES if environ.get(name)), "")
    return name, environ.get(name, "")
