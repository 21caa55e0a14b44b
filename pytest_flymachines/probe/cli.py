"""The command `pytest-flymachines probe`."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from pytest_flymachines.api import MachinesClient
from pytest_flymachines.errors import FlyMachinesError
from pytest_flymachines.options import token_in
from pytest_flymachines.probe.ground import Ground
from pytest_flymachines.probe.masks import Leak, Mask
from pytest_flymachines.probe.preflight import cost, hide_app, look, loopback
from pytest_flymachines.probe.registry import Check, load
from pytest_flymachines.probe.report import Outcome, Report
from pytest_flymachines.probe.runner import Runner
from pytest_flymachines.probe.wire import NoAnswer, Wire
from pytest_flymachines.run import owner
from pytest_flymachines.settings import PUBLIC_API

__all__ = ["probe"]

#: Small, and has a shell and python3.
IMAGE = "registry-1.docker.io/library/python:3.12-alpine"
EMULATOR = "pytest-flymachines"


class NotBegun(click.ClickException):
    """Nothing was made."""

    exit_code = 2


@click.command()
@click.option(
    "--api-url",
    envvar=["FLY_FLAPS_BASE_URL", "FLY_API_HOSTNAME"],
    default=PUBLIC_API,
    show_default=True,
    help="Base URL of the Machines API.",
)
@click.option(
    "-a",
    "--app",
    default="",
    envvar="FLY_APP",
    help="An app that exists; only what the probe makes in it is touched. One that does not is "
    "made in --org, and deleted.",
)
@click.option("--org", default="", envvar="FLY_ORG", help="Organization for an app of its own.")
@click.option(
    "--proxy-url",
    default="",
    envvar="FLY_EMULATOR_PROXY_URL",
    help="The proxy in front of the machines; by default https://APP.fly.dev.",
)
@click.option("--region", default="", help="Of the machines; by default the nearest.")
@click.option(
    "--image", default=IMAGE, show_default=True, help="Needs /bin/sh, and python3 for one check."
)
@click.option(
    "--report",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("fly-probe.json"),
    show_default=True,
    help="Where the report goes: Markdown if it ends in .md, else JSON.",
)
@click.option("--only", multiple=True, metavar="NAME", help="Only this area, or this check.")
@click.option("--list", "list_only", is_flag=True, help="Name the checks, and ask nothing.")
@click.option("--yes", is_flag=True, help="Do not ask before it costs money.")
def probe(
    api_url: str,
    app: str,
    org: str,
    proxy_url: str,
    region: str,
    image: str,
    file: Path,
    only: tuple[str, ...],
    list_only: bool,
    yes: bool,
) -> None:
    """Compare a server of the Machines API with what is known of Fly.

    Makes small machines, destroys all of them again, and writes a report that can be sent in:
    what differs, and the raw answers to what no source says. Takes a few minutes and less than
    a cent. Exit code 0: nothing differs; 1: something does; 2: not begun, or no
    machine could be made; 3: something is left behind.
    """
    checks = _chosen(only)
    if list_only:
        for one in checks:
            click.echo(f"{one.name}: {one.title} ({one.source} {one.section})")
        return
    if not file.absolute().parent.is_dir():
        raise click.UsageError(f"--report={file}: {file.absolute().parent} is no directory")
    _, token = token_in(os.environ)
    if not token:
        raise click.UsageError(
            "no token: set FLY_API_TOKEN (`fly tokens create org` makes one that can make an app, "
            "`fly tokens create deploy -a APP` one for an app that exists)"
        )
    mask = Mask(token, os.environ)
    mask.hide("owner", owner())
    try:
        with MachinesClient(token, base_url=api_url) as client, _wire(client, token) as wire:
            place = look(client, mask, app=app, org=org, emulated=_emulated(wire))
            made = "made, and deleted after it" if place.own else "not deleted"
            click.echo(f"{len(checks)} checks at {client.base_url} in app {place.app} ({made}).")
            click.echo(f"Estimated cost: {cost()}")
            if not yes:
                _agree()
            ground = Ground(
                wire,
                client,
                place.app,
                own=place.own,
                image=image,
                region=region,
                org=place.org,
                loopback=loopback(client.base_url),
                emulated=place.emulated,
                proxy_url=proxy_url,
            )
            report, ended = _carry_out(ground, checks, mask)
    except FlyMachinesError as error:
        raise NotBegun(str(error)) from None
    _tell(report, file, mask)
    if report.left:
        sys.exit(3)
    if report.advice:
        sys.exit(2)
    sys.exit(130 if ended else int(report.count("differs") > 0))


def _agree() -> None:
    try:
        agreed = click.confirm("Begin?")
    except click.Abort:
        agreed = False
        click.echo()
    if not agreed:
        raise NotBegun("nothing was made; answer y, or say --yes")


def _chosen(only: tuple[str, ...]) -> list[Check]:
    checks = load()
    for name in only:
        if not any(name in (one.name, one.area) for one in checks):
            areas = ", ".join(dict.fromkeys(one.area for one in checks))
            raise click.UsageError(
                f"--only={name}: expected an area ({areas}), or a name that --list shows"
            )
    return [one for one in checks if not only or one.name in only or one.area in only]


@contextlib.contextmanager
def _wire(client: MachinesClient, token: str) -> Iterator[Wire]:
    wire = Wire(client.base_url, token)
    try:
        yield wire
    finally:
        wire.close()


def _emulated(wire: Wire) -> bool:
    try:
        answer = wire.send("GET", "/v1/apps", timeout_s=20)
    except NoAnswer:
        return False  # the look at the app says why
    return EMULATOR in answer.headers.get("server", "")


def _carry_out(ground: Ground, checks: list[Check], mask: Mask) -> tuple[Report, bool]:
    """Run the checks and take everything away; the report, and whether it was cut short."""
    mask.hide("run", ground.run_id)
    runner = Runner(ground, checks, _progress)
    ended = False
    with _end_signals():
        try:
            hide_app(mask, ground.begin())
            runner.run()
        except KeyboardInterrupt:
            ended = True
            click.echo("\nending: everything that was made is destroyed first")
        finally:
            _finish(runner, ground)
    return runner.report, ended


def _finish(runner: Runner, ground: Ground) -> None:
    try:
        runner.finish(click.echo)
    except KeyboardInterrupt:
        click.echo(
            "interrupted while destroying; what is left: "
            f"pytest-flymachines reap --run {ground.run_id} -a {ground.app}"
            + (f", then fly apps destroy {ground.app}" if ground.own else ""),
            err=True,
        )
        sys.exit(3)


@contextlib.contextmanager
def _end_signals() -> Iterator[None]:
    """A cancelled job and a closed terminal end the probe as Ctrl-C does."""

    def end(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_IGN)  # the end is under way
        raise KeyboardInterrupt

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, end) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _progress(outcome: Outcome) -> None:
    click.echo(f"{outcome.verdict:9} {outcome.check.name}: {outcome.check.title}")
    if outcome.verdict == "not run":
        click.echo(f"{'':9} {outcome.why}")


def _tell(report: Report, file: Path, mask: Mask) -> None:
    if differences := report.differences(mask):
        click.echo("\nWhat differs from the reference:")
        for line in differences:
            click.echo(f"  {line}")
    click.echo(f"\n{report.summary()}; {report.seconds:.0f} s, {report.machines} machines")
    if report.advice:
        click.echo(report.advice, err=True)
    for line in report.left:
        click.echo(f"LEFT: {line}", err=True)
    try:
        report.write(file, mask)
    except Leak as leak:
        raise click.ClickException(
            f"no report was written: there would have been secrets in it ({leak})"
        ) from None
    except OSError as error:
        raise click.ClickException(f"the report could not be written: {error}") from None
    click.echo(f"Report: {file} (no tokens, names of organization or app, e-mail or IP addresses)")
