"""The console script `pytest-flymachines`."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import click

from pytest_flymachines import __version__
from pytest_flymachines.options import token_in
from pytest_flymachines.settings import PUBLIC_API

__all__ = ["main"]

_PASS_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


class _Group(click.Group):
    """Loads the commands on cassettes, and vcrpy with them, and the probe when one is named."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), "cassettes", "probe"])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name == "cassettes":
            from pytest_flymachines.cassettes.cli import cassettes

            return cassettes
        if cmd_name == "probe":
            from pytest_flymachines.probe.cli import probe

            return probe
        return super().get_command(ctx, cmd_name)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Sandboxes on Fly.io Machines for pytest."""
    # Without a handler Python prints its bare "stamina.retry_scheduled".
    logging.getLogger("stamina").addHandler(logging.NullHandler())


def _api_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that name an app and the API it is on."""
    for option in (
        click.option(
            "--api-url",
            envvar=["FLY_FLAPS_BASE_URL", "FLY_API_HOSTNAME"],
            default=PUBLIC_API,
            show_default=True,
            help="Base URL of the Machines API.",
        ),
        click.option(
            "-a",
            "--app",
            "apps",
            envvar="FLY_APP",
            multiple=True,
            default=("cook-sandbox",),
            show_default=True,
            help="Fly app; may be given more than once.",
        ),
    ):
        command = option(command)
    return command


def _client(api_url: str) -> Any:
    from pytest_flymachines.api import MachinesClient

    _, token = token_in(os.environ)
    if not token:
        raise click.UsageError(
            "no token: set FLY_API_TOKEN (`fly tokens create deploy -a <app>` makes one)"
        )
    return MachinesClient(token, base_url=api_url)


@main.command(context_settings=_PASS_ON)
@click.pass_context
def emulator(context: click.Context) -> None:
    """Serve the Machines API on loopback, for any client."""
    os.execv(  # noqa: S606
        sys.executable, [sys.executable, "-m", "pytest_flymachines.emulator", *context.args]
    )


@main.command("list")
@_api_options
def list_machines(apps: tuple[str, ...], api_url: str) -> None:
    """Show the machines and volumes that runs of this plugin made."""
    from pytest_flymachines._table import table
    from pytest_flymachines.errors import FlyMachinesError
    from pytest_flymachines.marks import volume_ttl_s
    from pytest_flymachines.prices import describe_cost
    from pytest_flymachines.sweep import ours

    names = ("app", "machine", "state", "age", "owner", "run", "ends", "cost so far")
    rows: list[tuple[str, ...]] = []
    now = time.time()
    volumes: list[str] = []
    with _client(api_url) as client:
        for app in apps:
            try:
                machines = ours(client, app)
                volumes += [
                    f"volume {volume.id} in {app}: {volume.size_gb} GB, "
                    + (
                        f"held by {volume.attached_machine_id}"
                        if volume.attached_machine_id
                        else "unused"
                    )
                    for volume in client.list_volumes(app)
                    if volume_ttl_s(volume.name) is not None
                ]
            except FlyMachinesError as error:
                raise click.ClickException(str(error)) from None
            for one in machines:
                left = one.deadline - now
                ends = f"in {_duration(left)}" if left > 0 else f"overdue by {_duration(-left)}"
                about = (one.machine.id, one.machine.state, _duration(one.age_s), one.owner)
                rows.append((app, *about, one.run, ends, describe_cost(one.machine, one.age_s)))
    if not rows:
        click.echo(f"no machine of this plugin in {', '.join(apps)}")
    for line in (*(table(names, rows) if rows else ()), *volumes):
        click.echo(line)


@main.command()
@_api_options
@click.option("--run", help="Every machine of this run, even if it is alive.")
@click.option(
    "--older-than",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Only what is older, and then also before its deadline, unless its run is alive.",
)
@click.option(
    "--all-mine",
    is_flag=True,
    help="Those of yours before their deadline, too, unless their run is alive.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be destroyed.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def reap(
    apps: tuple[str, ...],
    api_url: str,
    run: str | None,
    older_than: float | None,
    all_mine: bool,
    dry_run: bool,
    yes: bool,
) -> None:
    """Destroy what runs left behind.

    By default that is what is past its deadline.
    Never touches a machine that does not carry this plugin's metadata. Exit code 1 when
    something could not be destroyed.
    """
    from pytest_flymachines import reaper
    from pytest_flymachines.errors import FlyMachinesError

    if run is not None and (all_mine or older_than is not None):
        raise click.UsageError(
            f"--run={run} means all of that run: leave out --older-than and --all-mine"
        )
    with _client(api_url) as client:
        try:
            plan = reaper.plan(client, apps, run=run, older_than_s=older_than, all_mine=all_mine)
        except FlyMachinesError as error:
            raise click.ClickException(str(error)) from None
        for line in plan.lines():
            click.echo(line)
        if dry_run or not plan:
            click.echo("nothing to destroy" if not plan else "dry run: nothing was destroyed")
            return
        if not yes:
            click.confirm(f"destroy {len(plan)} of them?", abort=True)
        left = reaper.carry_out(client, plan)
    for line in left:
        click.echo(f"LEFT: {line}", err=True)
    click.echo(f"destroyed {len(plan) - len(left)}, left {len(left)}")
    sys.exit(1 if left else 0)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s"


@main.command()
@_api_options
def doctor(apps: tuple[str, ...], api_url: str) -> None:
    """Check git, engines, token and apps, and say what to do.

    Exit code 1 if something is bad.
    """
    from pytest_flymachines.doctor import examine

    _, token = token_in(os.environ)
    bad = False
    for finding in examine(token, apps, api_url):
        mark = {True: "ok  ", False: "BAD ", None: "    "}[finding.good]
        click.echo(f"{mark} {finding.subject}: {finding.detail}")
        bad = bad or (finding.good is False and not finding.subject.startswith("engine"))
    sys.exit(1 if bad else 0)


@main.command(context_settings={"ignore_unknown_options": True})
@click.option("--command", default="exec /bin/bash || exec /bin/sh", help="What to run.")
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[--fly-...]...")
def shell(command: str, options: tuple[str, ...]) -> None:
    """Open a terminal in a sandbox.

    It is made by the --fly-... options that pytest takes.

    For instance: pytest-flymachines shell --fly-mode=local --fly-repo=.
    """
    import pytest

    from pytest_flymachines.errors import FlyMachinesError
    from pytest_flymachines.settings import from_command_line
    from pytest_flymachines.shell import attach_terminal, open_sandbox

    try:
        settings = from_command_line(options)
        with open_sandbox(settings) as sandbox:
            click.echo(f"machine {sandbox.machine_id}, {sandbox.workdir}; exit ends it", err=True)
            code = attach_terminal(sandbox, command)
    except (FlyMachinesError, pytest.UsageError) as error:
        raise click.ClickException(str(error)) from None
    sys.exit(code)
