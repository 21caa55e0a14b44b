"""`pytest-flymachines cassettes`: list, check, verify, prune."""

from __future__ import annotations

import datetime
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pytest_flymachines.cassettes.home import Home
    from pytest_flymachines.cassettes.pruning import Needless

__all__ = ["cassettes"]

#: Options of pytest that `verify` gives itself, and what to do instead.
_NOT_FOR_VERIFY = {
    "--fly-cassettes": "name the recordings to compare with by --directory",
    "--fly-record": "it asks for every answer again, and writes none of them",
}


@click.group()
def cassettes() -> None:
    """Look after recorded cassettes."""


def _directory(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "-d",
        "--directory",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        callback=lambda _ctx, _param, directory: _found(directory),
        help="Directory of the cassettes.  [default: what fly_cassettes of pytest's ini file says, "
        "else `cassettes` in the rootdir]",
    )(command)


def _found(directory: Path | None) -> Home:
    """The directory that is named, or else the one that the tests use."""
    from pytest_flymachines.cassettes.home import Home, home
    from pytest_flymachines.errors import CassetteError

    if directory is not None:
        return Home(directory, "--directory", None)
    try:
        found = home(Path.cwd())
    except CassetteError as error:
        raise click.ClickException(str(error)) from error
    if not found.directory.is_dir():
        raise click.UsageError(
            f"there is no directory {found.directory} ({found.why}): record with "
            "`pytest --fly-record=all`, or name another with --directory"
        )
    if found.directory.is_relative_to(Path.cwd()):  # shorter in what is told of files
        return found._replace(directory=found.directory.relative_to(Path.cwd()))
    return found


def _rootdir(place: Home, rootdir: Path | None) -> Path:
    from pytest_flymachines.cassettes.home import rootdir_of
    from pytest_flymachines.errors import CassetteError

    if chosen := rootdir or place.rootdir:
        return chosen.resolve()
    try:
        return rootdir_of(place.directory.resolve())
    except CassetteError as error:
        raise click.ClickException(str(error)) from error


def _nothing(place: Home) -> None:
    click.echo(f"no cassettes in {place.directory.absolute()} ({place.why})", err=True)


_ROOTDIR = click.option(
    "--rootdir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The project's directory.  [default: pytest's rootdir]",
)


@cassettes.command("list")
@_directory
def list_cassettes(directory: Home) -> None:
    """Show whose each cassette is, how old and how large.

    And from what it was recorded, and how many requests it holds.
    """
    from pytest_flymachines._table import table
    from pytest_flymachines.cassettes.catalog import Catalog

    catalog = Catalog(directory.directory)
    rows: list[tuple[str, ...]] = []
    for path in catalog.paths():
        seen = catalog.summary(path)
        entry = seen.entry
        shown = _line(entry.owner if not entry.problem else f"{entry.path} (unreadable)")
        mode = str(entry.header.get("mode", "?"))
        age, size = _age(entry.header.get("date")), _size(seen.size)
        rows.append((shown, mode, age, size, str(seen.requests)))
    if not rows:
        _nothing(directory)
        return
    names = ("OWNER", "MODE", "AGE", "SIZE", "REQUESTS")
    for line in table(names, rows, numbers=("AGE", "SIZE", "REQUESTS")):
        click.echo(line)


@cassettes.command()
@_directory
@_ROOTDIR
@click.option("--orphans/--no-orphans", default=True, help="Collect the tests to find orphans.")
@click.option("--scrub", multiple=True, help="A secret value, or a variable that holds one.")
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def check(
    directory: Home,
    rootdir: Path | None,
    orphans: bool,
    scrub: tuple[str, ...],
    files: tuple[Path, ...],
) -> None:
    """Find secrets, unreadable files, orphans and leftovers.

    Exit code 1 if there is any.
    With FILES only those are checked, and not for orphans: for pre-commit. Large bodies, in
    `blobs`, are checked with the cassettes that refer to them. Secrets are what
    the environment holds, what --scrub names, and what is a token by its form.
    """
    from pytest_flymachines.cassettes.catalog import Catalog, suspicious
    from pytest_flymachines.cassettes.keys import BLOBS
    from pytest_flymachines.cassettes.scrub import Scrubber
    from pytest_flymachines.errors import SettingsError

    try:
        catalog, scrubber = Catalog(directory.directory), Scrubber(scrub)
    except SettingsError as error:
        raise click.BadParameter(str(error), param_hint="--scrub") from None
    problems = []
    checked = [path for path in files if path.parent.name != BLOBS] if files else catalog.paths()
    for entry in catalog.entries(checked):
        if entry.problem:
            problems.append(scrubber.text(entry.problem))
            continue
        shown = scrubber.text(str(entry.path))
        problems += [f"{shown}: secret: {found}" for found in suspicious(entry, scrubber)]
    if not checked:
        _nothing(directory)
    if orphans and not files:
        problems += list(_needless(directory.directory, _rootdir(directory, rootdir)).values())
    for problem in problems:
        click.echo(problem)
    click.echo(f"{len(checked)} cassette(s) checked, {len(problems)} problem(s)", err=True)
    if problems:
        sys.exit(1)


@cassettes.command()
@_directory
@_ROOTDIR
@click.option("--yes", is_flag=True, help="Do not ask.")
def prune(directory: Home, rootdir: Path | None, yes: bool) -> None:
    """Delete cassettes whose test is gone, and leftovers.

    Those are large bodies that no cassette refers to, and what recordings that were killed have
    left half. Recordings that run meanwhile lose nothing.
    """
    from pytest_flymachines.cassettes.pruning import delete
    from pytest_flymachines.errors import CassetteError

    place = directory.directory
    told = _needless(place, _rootdir(directory, rootdir))
    for line in told.values():
        click.echo(line)
    if not told:
        click.echo(f"nothing to delete in {place.absolute()}")
        return
    if not yes:
        click.confirm(f"Delete {len(told)} file(s)?", abort=True)
    try:
        deleted = delete(place, told)
    except CassetteError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"deleted {len(deleted)} file(s)")
    if kept := len(told) - len(deleted):
        click.echo(
            f"{kept} file(s) are gone, or were written again meanwhile, and were not deleted"
        )


@cassettes.command(context_settings={"ignore_unknown_options": True})
@_directory
@click.argument("pytest_args", nargs=-1, type=click.UNPROCESSED)
def verify(directory: Home, pytest_args: tuple[str, ...]) -> None:
    """Tell what machines answer now in another way.

    Runs the tests on a machine, and compares its answers with the recorded ones.
    PYTEST_ARGS go to pytest, such as `tests/test_a.py --fly-mode=local`. Nothing is written.
    Exit code 1 if an answer differs in meaning, or a test failed.
    """
    from pytest_flymachines.cassettes.catalog import Catalog
    from pytest_flymachines.cassettes.verify import differences

    for word in pytest_args:
        if (option := word.partition("=")[0]) in _NOT_FOR_VERIFY:
            raise click.UsageError(f"{word}: verify takes no {option}: {_NOT_FOR_VERIFY[option]}")
    with tempfile.TemporaryDirectory(prefix="pytest-flymachines-") as scratch:
        command = [sys.executable, "-m", "pytest", *pytest_args]
        options = ["--fly-record=all", f"--fly-cassettes={scratch}"]
        status = subprocess.run([*command, *options], check=False).returncode
        old, new = Catalog(directory.directory), Catalog(Path(scratch))
        same = differing = unrecorded = 0
        for entry in new.entries():
            path = directory.directory / entry.path.relative_to(scratch)
            if not path.exists():
                unrecorded += 1
                continue
            recorded = old.read(path)
            told = [recorded.problem] if recorded.problem else differences(recorded, entry)
            same, differing = same + (not told), differing + bool(told)
            if told:
                click.echo(f"\n{entry.owner} ({path}) differs:")
                click.echo("\n".join(f"  {line}" for line in told))
    click.echo(f"\n{same} as recorded, {differing} differ, {unrecorded} never recorded")
    if status or differing:
        sys.exit(1)


def _needless(directory: Path, rootdir: Path) -> dict[Needless, str]:
    """Files that nobody needs any more, and what to say of each."""
    from pytest_flymachines.cassettes.pruning import needless
    from pytest_flymachines.errors import CassetteError

    try:
        return needless(directory, rootdir)
    except CassetteError as error:
        raise click.ClickException(str(error)) from error


def _line(text: str) -> str:
    """Text on one line, as names of tests and files need not be."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


def _age(date: object) -> str:
    try:
        made = datetime.datetime.fromisoformat(str(date))
    except ValueError:
        return "?"
    if made.tzinfo is None:
        made = made.replace(tzinfo=datetime.UTC)
    seconds = (datetime.datetime.now(datetime.UTC) - made).total_seconds()
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return "now"


def _size(size: int) -> str:
    return f"{size / 1024:.1f} KiB" if size >= 1024 else f"{size} B"
