"""What a run says about its machines: progress, failures, summary."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext, suppress
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
from pytest_flymachines.tracebacks import chain, has_users_frame

if TYPE_CHECKING:
    from pytest_flymachines.teardown import Outcome

__all__ = ["Repeated", "may_be_lost", "progress_of", "write_summary"]


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


def may_be_lost(error: BaseException) -> bool:
    """Whether the end of a machine may be behind a test's failure."""
    suspicious = (MachineGone, AgentUnavailable, ApiError, ApiUnreachable, ConnectionError)
    return any(
        isinstance(one, suspicious) and not isinstance(one, LostBefore) for one in chain(error)
    )


class Repeated:
    """Knows which failures of a sandbox were reported, so that each is told at length once."""

    def __init__(self) -> None:
        self._told: list[BaseException] = []

    def shorten(self, report: pytest.TestReport, error: BaseException) -> None:
        """Leave the error without its way through us, and one line where it was told before.

        Before means here or by another worker.
        """
        if not isinstance(error, FlyMachinesError):
            return
        lines = str(error).splitlines()
        if report.when == "setup" and self._told_before(error):
            lines = lines[:1]
        elif report.when == "call" or has_users_frame(error):  # whose line is worth seeing
            return
        report.longrepr = f"{type(error).__name__}: " + "\n    ".join(lines)

    def _told_before(self, error: FlyMachinesError) -> bool:
        before = any(one is error for one in self._told)
        if not before:
            self._told.append(error)
        return before or isinstance(error, FailedBefore | LostBefore)
