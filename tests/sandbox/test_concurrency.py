"""Many threads at one handle, over every way."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pytest_flymachines.sandbox import Sandbox

from .support import wait_until
from .world import SPEC, World

THREADS = 16
# Over the API alone a command costs seven times as much, so one engine is enough there.
EXECS, FEWER = 200, 40

AGENT = """
for d in /proc/[0-9]*; do
    case $(tr '\\0' ' ' <"$d/cmdline") in
    *"python3 -IS $PYTEST_FLYMACHINES_ROOT/opt/pytest-flymachines/agent.pyz"*)
        echo $(ls "$d/fd" | wc -l) $(ls "$d/task" | wc -l) ;;
    esac
done 2>/dev/null
"""


def held(sandbox: Sandbox, world: World) -> dict[str, int]:
    """Descriptors and threads: of this process, of the agent in the machine, of the emulator."""
    descriptors, threads = map(int, sandbox.exec(AGENT).stdout.split())
    return {
        "the agent's descriptors": descriptors,
        "the agent's threads": threads,
        "our descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "our threads": threading.active_count(),
        "the emulator's descriptors": len(list(Path(f"/proc/{world.emulator.pid}/fd").iterdir())),
    }


def more_than(before: dict[str, int], now: dict[str, int]) -> dict[str, int]:
    """What there is more of; idle connections of earlier tests may have ended meanwhile."""
    return {what: count - before[what] for what, count in now.items() if count > before[what]}


def test_two_hundred_commands_from_sixteen_threads(
    sandbox: Sandbox, world: World, machine: str
) -> None:
    """All correct, none lost, and no descriptor or thread left over, here or in the machine."""
    way = sandbox.attachment.channel.name
    execs = EXECS if way == "agent" or world.emulator.engine == "bubblewrap" else FEWER

    def run(number: int) -> tuple[str, str, int]:
        script = f"read -r x; echo out {number} $x; echo err {number} >&2; exit {number % 5}"
        result = handle.exec(script, stdin=f"in {number}\n", check=False)
        return result.stdout, result.stderr, result.exit_code

    before = held(sandbox, world)
    with world.apart() as own:
        handle = own.sandbox(way, machine, SPEC)
        with ThreadPoolExecutor(THREADS) as pool:
            results = list(pool.map(run, range(execs)))
    assert results == [(f"out {n} in {n}\n", f"err {n}\n", n % 5) for n in range(execs)]
    wait_until(lambda: not more_than(before, held(sandbox, world)), f"{before} again")


def test_no_descriptor_is_left_over(sandbox: Sandbox) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counted while it is open

    def use(number: int) -> None:
        sandbox.write_file(f"file{number}", "x" * 100)
        sandbox.read_file(f"file{number}")
        sandbox.exec("true")
        with sandbox.popen("cat") as process:
            process.stdin.write("x")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(use, range(4)))
    before = descriptors()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(use, range(12)))
    assert descriptors() <= before


def test_files_of_several_threads_do_not_mix(sandbox: Sandbox) -> None:
    contents = {f"file{n}": bytes([n]) * 40_000 for n in range(6)}
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda item: sandbox.write_file(*item), contents.items()))
    assert {f.name: sandbox.read_file(f.name) for f in sandbox.list_files()} == contents
