"""What a run says about its machines: progress, failures, summary."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import pytest

from pytest_flymachines.errors import (
    AgentUnavailable,
    ApiError,
    ApiUnreachable,
    FlyMachinesError,
    MachineGone,
)
from pytest_flymachines.progress import Progress
from pytest_flymachines.sharing import FailedBefore, LostBefore

if TYPE_CHECKING:
    from pytest_flymachines.teardown import Outcome

__all__ = ["Repeated", "hide_inside", "may_be_lost", "progress_of", "write_summary"]

_PACKAGE = Path(__file__).parent


def progress_of(config: pytest.Config) -> Progress:
    """Writes lines to the terminal, where there is one; past the capture of a test's output."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    capture = config.pluginmanager.get_plugin("capturemanager")

    def progress(text: str, verbosity: int = 0) -> None:
        if reporter is None or reporter.verbosity < verbosity:
            return
        past = capture.global_and_fixture_disabled() if capture else nullcontext()
        with past, suppress(OSError):  # a terminal that was closed keeps nothing from its end
            reporter.ensure_newline()
            reporter.write_line(f"fly sandbox: {text}")

    return progress


def write_summary(
    reporter: pytest.TerminalReporter, outcome: Outcome, swept: Sequence[str]
) -> None:
    """What was used, kept, and could not be removed."""
    sections = (
        ("kept", outcome.kept),
        ("still in use", outcome.shared),
        ("LEFT BEHIND", outcome.left),
    )
    for title, lines in sections:
        if lines:
            reporter.section(f"fly sandbox: {title}", yellow=True)
            for line in lines:
                reporter.write_line(line)
    if swept:
        reporter.write_line(f"fly sandbox: swept up what earlier runs had left: {', '.join(swept)}")
    if outcome.usage:
        reporter.write_line(f"fly sandbox: {outcome.usage}")


def hide_inside(error: BaseException) -> None:
    """Have pytest leave our own frames out where an error speaks to the user."""
    for one in _chain(error):
        for frame, _ in traceback.walk_tb(one.__traceback__):
            if _is_ours(frame):
                frame.f_globals["__tracebackhide__"] = _speaks_to_the_user


def _speaks_to_the_user(excinfo: pytest.ExceptionInfo[BaseException]) -> bool:
    return isinstance(excinfo.value, FlyMachinesError)


def _is_ours(frame: FrameType) -> bool:
    return _PACKAGE in Path(frame.f_code.co_filename).parents


def may_be_lost(error: BaseException) -> bool:
    """Whether the end of a machine may be behind a test's failure."""
    suspicious = (MachineGone, AgentUnavailable, ApiError, ApiUnreachable, ConnectionError)
    return any(
        isinstance(one, suspicious) and not isinstance(one, LostBefore) for one in _chain(error)
    )


class Repeated:
    """Knows which failures of a sandbox were reported, so that each is told at length once."""

    def __init__(self, rootpath: Path) -> None:
        self._rootpath = rootpath
        self._told: list[BaseException] = []

    def shorten(self, report: pytest.TestReport, error: BaseException) -> None:
        """Leave the error without its way through us, and one line where it was told before.

        Before means here or by another worker.
        """
        if not isinstance(error, FlyMachinesError) or report.when != "setup":
            return
        before = any(one is error for one in self._told)
        if not before:
            self._told.append(error)
        lines = str(error).splitlines()
        if before or isinstance(error, FailedBefore | LostBefore):
            lines = lines[:1]
        elif any(map(self._is_users, traceback.walk_tb(error.__traceback__))):
            return
        report.longrepr = f"{type(error).__name__}: " + "\n    ".join(lines)

    def _is_users(self, step: tuple[FrameType, int]) -> bool:
        """Whether a fixture of the project is on the way, whose line is worth seeing."""
        path = Path(step[0].f_code.co_filename)
        inside = self._rootpath in path.parents and "site-packages" not in path.parts
        return inside and not _is_ours(step[0])


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
