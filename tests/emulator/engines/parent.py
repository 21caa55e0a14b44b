"""A stand-in for the emulator: starts machines, says so, and waits to be killed.

Usage: python -m tests.emulator.engines.parent ENGINE DIRECTORY
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from pytest_flymachines.emulator.engines import ENGINES, disks
from pytest_flymachines.emulator.engines.base import GuestMount
from tests.emulator.engines import dockerd
from tests.emulator.engines.lab import Lab, output

# Whatever a program may do to get away from its parent.
RUNAWAYS = (
    "setsid sleep 7000 >/dev/null 2>&1 </dev/null & "
    "(setsid sh -c 'trap \"\" TERM HUP INT; sleep 7001 & while :; do sleep 7002; done' "
    ">/dev/null 2>&1 </dev/null &) ; "
    "nohup sleep 7003 >/dev/null 2>&1 </dev/null & exit 0"
)


async def main() -> None:
    directory = Path(sys.argv[2])
    engine = ENGINES[sys.argv[1]](directory / "engine")
    lab = Lab(engine, directory / "engine", directory, dockerd.IMAGE)
    mounts = []
    if not disks.missing():
        (directory / "volume").mkdir()
        disk = disks.Disk(directory / "volume.ext4")
        disk.make(8 * 2**20)
        mounts = [GuestMount(directory / "volume", "/data", disk.attach())]
    script = "sleep 7004 & sleep 7005 & wait"
    running = await lab.start("sh", "-c", script, tty=True, mounts=mounts)
    await output(running, RUNAWAYS)
    suspended = await lab.start("sh", "-c", "setsid sleep 7006 & wait")
    await suspended.suspend()
    print("ready", flush=True)
    await asyncio.sleep(600)


if __name__ == "__main__":
    asyncio.run(main())
