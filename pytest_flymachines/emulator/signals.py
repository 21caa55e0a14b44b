"""The signals that machines take."""

from __future__ import annotations

import signal

from pytest_flymachines.emulator.answers import Problem
from pytest_flymachines.emulator.config import StopConfig
from pytest_flymachines.emulator.fields import go_list, invalid, one_of

__all__ = ["SIGNALS", "STOP_SIGNALS", "check_stop", "signal_name"]

STOP_SIGNALS = ("SIGHUP", "SIGINT", "SIGQUIT", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGTERM")
SIGNALS = (
    *STOP_SIGNALS,
    *("SIGABRT", "SIGALRM", "SIGFPE", "SIGILL", "SIGPIPE", "SIGSEGV", "SIGTRAP"),
)


def signal_name(given: str | int, allowed: tuple[str, ...], where: str) -> str:
    """A signal by name or number, with or without `SIG`.

    Raises:
        Problem: 400 for one that is not allowed here.
    """
    try:
        name = signal.Signals(given).name if isinstance(given, int) else given.upper()
    except ValueError:
        name = str(given)
    name = name if name.startswith("SIG") or isinstance(given, int) else f"SIG{name}"
    if name not in allowed:
        raise Problem(
            400,
            f"invalid_argument: invalid {where}.Signal: value must be in list {go_list(allowed)}",
        )
    return name


def check_stop(where: str, given: StopConfig | None) -> None:
    """Refuse a `stop_config`, or a container's `stop`, that cannot be done.

    Raises:
        Problem: 400.
    """
    if given and given.signal:
        one_of(f"{where}.signal", given.signal, STOP_SIGNALS)
    if given and given.timeout and given.timeout.ns < 0:
        raise invalid(f"{where}.timeout", "must not be negative")
