"""An engine with a machine in which `attacks` runs, and what it is after, on this computer.

Run as the user whose walls are to be tried: `python -m tests.emulator.engines.besieged DIRECTORY
walls`, or `bare` for a control without a machine. Prints what `attacks` printed, and how the
process ended that it was after.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pytest_flymachines.emulator.engines.bubblewrap import BubblewrapEngine
from tests.emulator.engines.lab import Lab

SECRET = f"secret-{os.getpid()}"
NAMESPACES = ("mnt", "net", "pid", "user", "ipc", "uts")
HARMLESS = ("network", "processes", "namespaces", "files", "keys")
EVERY_KIND = (*HARMLESS, "devices", "mounts", "kernel", "everybody")
ATTACKS = Path(__file__).with_name("attacks.py")


def own_addresses() -> list[str]:
    """This computer's addresses that others may use."""
    found = subprocess.run(
        ["ip", "-o", "addr", "show", "scope", "global"], capture_output=True, text=True, check=False
    )
    return [line.split()[3].partition("/")[0] for line in found.stdout.splitlines()]


def session_key() -> int:
    """A key in the session keyring that this process and all below it share."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall(250, 1, None)  # A session of our own: not that of whoever runs the tests.
    return int(libc.syscall(248, b"user", SECRET.encode(), b"x", ctypes.c_size_t(1), -3))


@contextlib.contextmanager
def prey(directory: Path) -> Iterator[tuple[dict[str, Any], subprocess.Popen[bytes]]]:
    """What an attacker could be after, described for `attacks`."""
    file = directory / "secret"
    file.write_text(SECRET)
    disk = Path("/").stat().st_dev
    with (
        socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener,
        socket.socket(socket.AF_UNIX) as abstract,
        subprocess.Popen(["sleep", "7030"], env={**os.environ, "SECRET": SECRET}) as outsider,
    ):
        abstract.bind(f"\0{SECRET}")
        abstract.listen()
        yield (
            {
                "addresses": ["127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0", *own_addresses()],
                "port": listener.getsockname()[1],
                "abstract": SECRET,
                "pid": outsider.pid,
                "secret": SECRET,
                "namespaces": {n: Path(f"/proc/self/ns/{n}").stat().st_ino for n in NAMESPACES},
                "file": str(file),
                "homes": ["/root", "/home", str(Path.home()), "/media", "/mnt"],
                "disk": [os.major(disk), os.minor(disk)],
                "key": SECRET,
                "key_number": session_key(),
            },
            outsider,
        )
        outsider.kill()


async def besiege(directory: Path) -> None:
    """Run all attacks in a machine."""
    with prey(directory) as (target, outsider):
        lab = Lab(BubblewrapEngine(directory / "engine"), directory / "engine", directory)
        machine = await lab.start("sh", "-c", "trap '' TERM; exec sleep infinity")
        command = ["python3", "-c", ATTACKS.read_text(), json.dumps(target), *EVERY_KIND]
        outcome = await machine.exec(command, timeout_s=100)
        await lab.end()
        await lab.engine.close()
        assert outcome.exit_code == 0, outcome
        print(json.dumps({**json.loads(outcome.stdout), "outsider_died": outsider.poll()}))


def without_walls(directory: Path) -> None:
    """Run the attacks that do no harm on this computer itself."""
    with prey(directory) as (target, _):
        command = [sys.executable, str(ATTACKS), json.dumps(target), *HARMLESS]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    if sys.argv[2] == "walls":
        asyncio.run(besiege(Path(sys.argv[1])))
    else:
        without_walls(Path(sys.argv[1]))
