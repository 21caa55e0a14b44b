"""Many threads at one handle, over every way."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

from pytest_flymachines.sandbox import Sandbox

EXECS = 200
THREADS = 16


def test_two_hundred_commands_from_sixteen_threads(sandbox: Sandbox) -> None:
    """All correct, none lost, and no thread or process left over."""
    sandbox.exec("true")
    threads = threading.active_count()

    def run(number: int) -> tuple[str, str, int]:
        script = f"read -r x; echo out {number} $x; echo err {number} >&2; exit {number % 5}"
        result = sandbox.exec(script, stdin=f"in {number}\n", check=False)
        return result.stdout, result.stderr, result.exit_code

    with ThreadPoolExecutor(THREADS) as pool:
        results = list(pool.map(run, range(EXECS)))
    assert results == [(f"out {n} in {n}\n", f"err {n}\n", n % 5) for n in range(EXECS)]
    assert threading.active_count() == threads


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
