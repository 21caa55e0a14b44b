"""Where a project has its cassettes, as pytest finds it out."""

from __future__ import annotations

import argparse
import inspect
import os
import shlex
from pathlib import Path
from typing import Any, NamedTuple

from pytest_flymachines.errors import CassetteError

__all__ = ["Home", "home", "rootdir_of"]

_OPTION = "fly_cassettes"


class Home(NamedTuple):
    """A directory of cassettes.

    Attributes:
        directory: It, whether or not it is there.
        why: Who says so.
        rootdir: The project's directory, to which node ids are relative; None if nobody asked.
    """

    directory: Path
    why: str
    rootdir: Path | None


def home(start: Path) -> Home:
    """The cassettes of the project in which a directory is: what ini says, else the default.

    Raises:
        CassetteError: The project's ini file cannot be read.
    """
    rootdir, inifile, ini = _setup(start, [])
    if given := _typed([ini.get("addopts", ""), os.environ.get("PYTEST_ADDOPTS", "")]):
        return Home(rootdir / given, "--fly-cassettes of addopts", rootdir)
    if given := str(ini.get(_OPTION) or "").strip():
        return Home(rootdir / given, f"{_OPTION} of {inifile}", rootdir)
    return Home(rootdir / "cassettes", "the default", rootdir)


def rootdir_of(directory: Path) -> Path:
    """The project around a directory of cassettes: that of its ini file, else what holds it.

    Raises:
        CassetteError: The project's ini file cannot be read.
    """
    rootdir, inifile, _ = _setup(directory.parent, [str(directory)])
    return directory.parent if inifile is None else rootdir


def _setup(start: Path, args: list[str]) -> tuple[Path, Path | None, dict[str, Any]]:
    """Pytest's rootdir, its ini file, and what stands in that."""
    import pytest
    from _pytest.config.findpaths import determine_setup  # nothing public finds it without a run

    given = {"inifile": None, "override_ini": None, "args": args, "rootdir_cmd_arg": None}
    wanted = inspect.signature(determine_setup).parameters  # from 9.0 on one more
    chosen: Any = {name: value for name, value in given.items() if name in wanted}
    try:
        found: Any = determine_setup(**chosen, invocation_dir=start)
    except pytest.UsageError as error:
        raise CassetteError(str(error)) from error
    # from 9.0 on a value has more to it than its text
    ini = {name: getattr(value, "value", value) for name, value in found[2].items()}
    return found[0], found[1], ini


def _typed(options: list[Any]) -> str:
    """The last `--fly-cassettes` among options; empty if there is none."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--fly-cassettes", default="")
    try:
        words = [word for some in options for word in _words(some)]
        return str(parser.parse_known_args(words)[0].fly_cassettes)
    except (argparse.ArgumentError, ValueError) as error:
        raise CassetteError(f"addopts, of the ini file or PYTEST_ADDOPTS: {error}") from error


def _words(value: Any) -> list[str]:
    return shlex.split(value) if isinstance(value, str) else [str(word) for word in value]
