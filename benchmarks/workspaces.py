"""A private workspace beside a plain copy of it, on each engine.

    python benchmarks/workspaces.py [--files 2000] [--rounds 15]

What `fly_workspace` costs a test: making a private copy of a checkpoint, and dropping it. Between
the two the test takes as long as two copies do, so that the next one can be made ahead; `at once`
is without that time. Beside it, in the same machine, `cp -a` of the same files.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from pytest_flymachines.sandbox import Sandbox
from tests.emulator.engines import dockerd
from tests.sandbox.world import SPEC, open_world

FILL = "mkdir t; i=0; while [ $i -lt %d ]; do head -c 2000 /dev/urandom >t/$i; i=$((i + 1)); done"


def timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def measure(sandbox: Sandbox, files: int, rounds: int) -> tuple[str, list[float]]:
    """How the workspaces are made, and median seconds of: plain copy, at once, made, dropped."""
    sandbox.exec(FILL % files)
    sandbox.checkpoint("bench")
    channel = sandbox.attachment.channel
    path = channel.make_workspace("bench")
    mounted = f" {path.decode()} overlay " in sandbox.exec("cat /proc/mounts").stdout
    channel.drop_workspace(path)

    def plain() -> None:
        sandbox.exec('cp -a "$PWD" /tmp/plain')

    def round_(pause_s: float) -> tuple[float, float]:
        made: list[bytes] = []
        making = timed(lambda: made.append(channel.make_workspace("bench")))
        time.sleep(pause_s)
        return making, timed(lambda: channel.drop_workspace(made[0]))

    copies = []
    for _ in range(rounds):
        copies.append(timed(plain))
        sandbox.exec("rm -r /tmp/plain")
    copy = statistics.median(copies)
    at_once = [round_(0)[0] for _ in range(rounds)]
    time.sleep(2 * copy)
    pairs = [round_(2 * copy) for _ in range(rounds)]
    making, dropping = (statistics.median(column) for column in zip(*pairs, strict=True))
    return "overlay" if mounted else "copy", [copy, statistics.median(at_once), making, dropping]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    print(f"{options.files} files; milliseconds, and the ratio of made + dropped to a plain copy")
    print(f"{'':12}{'':9}{'cp -a':>9}{'at once':>9}{'made':>9}{'dropped':>9}{'ratio':>8}")
    for engine in ("bubblewrap", "process", "docker"):
        if engine == "docker" and (why := dockerd.missing()):
            print(f"docker is left out: {why}")
            continue
        with open_world(engine) as world:
            sandbox = world.sandbox("agent", world.handle, SPEC)
            method, seconds = measure(sandbox, options.files, options.rounds)
        shown = "".join(f"{1000 * s:9.1f}" for s in seconds)
        ratio = (seconds[2] + seconds[3]) / seconds[0]
        print(f"{engine:12}{method:9}{shown}{ratio:8.2f}")


if __name__ == "__main__":
    main()
