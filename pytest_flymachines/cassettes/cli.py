"""`pytest-flymachines cassettes`: list, check, verify, prune."""

from __future__ import annotations

import datetime
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

__all__ = ["cassettes"]


@click.group()
def cassettes() -> None:
    """Look after recorded cassettes."""


def _directory(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "-d",
        "--directory",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        default="cassettes",
        show_default=True,
        help="Directory of the cassettes; the project is around it.",
    )(command)


def _rootdir(directory: Path, rootdir: Path | None) -> Path:
    return (rootdir or directory.resolve().parent).resolve()


_ROOTDIR = click.option(
    "--rootdir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The project's directory.  [default: the one that holds the cassettes]",
)


@cassettes.command("list")
@_directory
def list_cassettes(directory: Path) -> None:
    """Show each cassette: whose, from what, how old, how large, how many requests."""
    from pytest_flymachines.cassettes.catalog import Catalog

    catalog = Catalog(directory)
    rows = [("OWNER", "MODE", "AGE", "SIZE", "REQUESTS")]
    for entry in catalog.entries():
        shown = _line(entry.owner if not entry.problem else f"{entry.path} (unreadable)")
        mode = str(entry.header.get("mode", "?"))
        age, size = _age(entry.header.get("date")), _size(catalog.size(entry))
        rows.append((shown, mode, age, size, str(len(entry.requests))))
    width = [max(len(row[column]) for row in rows) for column in range(5)]
    for owner, mode, age, size, count in rows:
        click.echo(
            f"{owner:<{width[0]}}  {mode:<{width[1]}}  {age:>{width[2]}}  "
            f"{size:>{width[3]}}  {count:>{width[4]}}"
        )


@cassettes.command()
@_directory
@_ROOTDIR
@click.option("--orphans/--no-orphans", default=True, help="Collect the tests to find orphans.")
@click.option("--scrub", multiple=True, help="A secret value, or a variable that holds one.")
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def check(
    directory: Path,
    rootdir: Path | None,
    orphans: bool,
    scrub: tuple[str, ...],
    files: tuple[Path, ...],
) -> None:
    """Find secrets, unreadable files and orphans; exit code 1 if there is any.

    With FILES only those are checked, and not for orphans: for pre-commit. Large bodies, in
    `blobs`, are checked with the cassettes that refer to them. Secrets are what
    the environment holds, what --scrub names, and what is a token by its form.
    """
    from pytest_flymachines.cassettes.catalog import Catalog, suspicious
    from pytest_flymachines.cassettes.keys import BLOBS
    from pytest_flymachines.cassettes.scrub import Scrubber
    from pytest_flymachines.errors import SettingsError

    try:
        catalog, scrubber = Catalog(directory), Scrubber(scrub)
    except SettingsError as error:
        raise click.BadParameter(str(error), param_hint="--scrub") from None
    problems = []
    checked = [path for path in files if path.parent.name != BLOBS] if files else catalog.paths()
    for entry in catalog.entries(checked):
        if entry.problem:
            problems.append(entry.problem)
            continue
        problems += [f"{entry.path}: secret: {found}" for found in suspicious(entry, scrubber)]
    if orphans and not files:
        problems += _orphans(directory, _rootdir(directory, rootdir))[1]
    for problem in problems:
        click.echo(problem)
    click.echo(f"{len(checked)} cassette(s) checked, {len(problems)} problem(s)", err=True)
    if problems:
        sys.exit(1)


@cassettes.command()
@_directory
@_ROOTDIR
@click.option("--yes", is_flag=True, help="Do not ask.")
def prune(directory: Path, rootdir: Path | None, yes: bool) -> None:
    """Delete cassettes whose test is gone, and large bodies that no cassette refers to."""
    paths, told = _orphans(directory, _rootdir(directory, rootdir))
    for line in told:
        click.echo(line)
    if not paths:
        click.echo("nothing to delete")
        return
    if not yes:
        click.confirm(f"Delete {len(paths)} file(s)?", abort=True)
    for path in paths:
        path.unlink()
        _remove_empty(path.parent, directory)
    click.echo(f"deleted {len(paths)} file(s)")


@cassettes.command(context_settings={"ignore_unknown_options": True})
@_directory
@click.argument("pytest_args", nargs=-1, type=click.UNPROCESSED)
def verify(directory: Path, pytest_args: tuple[str, ...]) -> None:
    """Run the tests on a machine and tell which answers differ from the recorded ones.

    PYTEST_ARGS go to pytest, such as `tests/test_a.py --fly-mode=local`. Nothing is written.
    Exit code 1 if an answer differs in meaning, or a test failed.
    """
    from pytest_flymachines.cassettes.catalog import Catalog
    from pytest_flymachines.cassettes.verify import differences

    with tempfile.TemporaryDirectory(prefix="pytest-flymachines-") as scratch:
        command = [sys.executable, "-m", "pytest", *pytest_args]
        options = ["--fly-record=all", f"--fly-cassettes={scratch}"]
        status = subprocess.run([*command, *options], check=False).returncode
        old, new = Catalog(directory), Catalog(Path(scratch))
        same = differing = unrecorded = 0
        for entry in new.entries():
            path = directory / entry.path.relative_to(scratch)
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


def _orphans(directory: Path, rootdir: Path) -> tuple[list[Path], list[str]]:
    """Files that nobody needs any more, and what to say of them."""
    from pytest_flymachines.cassettes.catalog import Catalog
    from pytest_flymachines.cassettes.inventory import orphans
    from pytest_flymachines.errors import CassetteError

    catalog = Catalog(directory)
    entries = list(catalog.entries())
    try:
        gone = orphans(entries, rootdir)
        paths = {entry.path for entry in gone}
        left = catalog.left_over(entry.path for entry in entries if entry.path not in paths)
    except CassetteError as error:
        raise click.ClickException(str(error)) from error
    told = [f"{entry.path}: orphan: nothing makes {entry.owner} any more" for entry in gone]
    told += [f"{path}: left over: no cassette refers to it" for path in left]
    return [*sorted(paths), *left], told


def _remove_empty(folder: Path, top: Path) -> None:
    while folder != top and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


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
