"""pasta for one machine: started outside its namespaces, waited for and fenced inside."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from pytest_flymachines.emulator.engines.supervisor import linux
from pytest_flymachines.emulator.engines.supervisor.walls import WallsError

__all__ = ["await_network", "start_pasta"]

_TIMEOUT_S = 10.0


def start_pasta(command: list[str], first: int) -> int:
    """Run it for the network of a machine's first process; its pid."""
    argv = [*command, str(first)]
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        linux.die_with_parent(signal.SIGKILL)
        null = os.open("/dev/null", os.O_RDWR)
        for target in (0, 1, 2):
            os.dup2(null, target)
        os.execv(argv[0], argv)  # noqa: S606 (argv is the point)
    finally:
        os._exit(127)


def await_network(pid: int, blocked: list[Any]) -> None:
    """Inside the machine's namespaces: wait for the default route, then block networks.

    Args:
        pid: Of pasta.
        blocked: Address and prefix length of each.

    Raises:
        WallsError: pasta has ended, or needs too long.
    """
    deadline = time.monotonic() + _TIMEOUT_S
    # Of the machine's first process: this one is not in the pid namespace of this /proc.
    routes = Path("/proc/1/net/route")
    while not any(line.split()[1] == "00000000" for line in routes.read_text().splitlines()):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            raise WallsError(f"pasta ended with status {os.waitstatus_to_exitcode(status)}")
        if time.monotonic() > deadline:
            raise WallsError(f"pasta made no network within {_TIMEOUT_S:.0f} s")
        time.sleep(0.002)
    for address, prefix_bits in blocked:
        linux.block_network(address, prefix_bits)
