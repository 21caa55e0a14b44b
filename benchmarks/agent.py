"""What the agent costs: start, one exec, files up and down, memory.

Run `python benchmarks/agent.py [PYTHON]`; PYTHON is what runs the agent. Figures are medians
on loopback, so a busy computer shows in them.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from pytest_flymachines._clock import SystemClock
from pytest_flymachines._http import PoolTransport
from pytest_flymachines.agent.bundle import build
from pytest_flymachines.agent.channel import AgentChannel
from pytest_flymachines.sandbox.channel import Command

MEGABYTES = 100


def main() -> None:
    python = sys.argv[1] if len(sys.argv) > 1 else sys.executable
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "agent.pyz").write_bytes(build())
        print(f"bundle: {len(build()) / 1000:.0f} KB, run by {python}")
        starts = [_first_answer_s(python, directory) for _ in range(7)]
        print(f"start to first answer: {statistics.median(starts) * 1000:.0f} ms")
        with _agent(python, directory) as (channel, pid):
            print(f"memory when idle: {_memory_mb(pid):.1f} MB")
            _processes(channel)
            _files(channel, directory)
            print(f"memory after all: {_memory_mb(pid):.1f} MB")


def _processes(channel: AgentChannel) -> None:
    def start(command: Command) -> Callable[[], object]:
        return lambda: channel.start(command, wait_s=10, forget=True)

    _each("health", 300, channel.health)
    _each("exec true", 300, start(Command(argv=[b"true"])))
    _each("exec sh -c", 300, start(Command(argv=[b"/bin/sh", b"-c", b"echo hi"])))
    _each("exec on a terminal", 100, start(Command(argv=[b"true"], pty=(24, 80))))

    def output() -> None:
        command = Command(argv=[b"head", b"-c", b"%d" % (MEGABYTES << 20), b"/dev/zero"])
        update = channel.start(command, wait_s=0, forget=True)
        got = len(update.stdout)
        while update.running or got < update.stdout_size:
            update = channel.poll(update.id, stdout=got, stderr=0, wait_s=10, forget=True)
            got += len(update.stdout)

    _throughput("output of a process", output)


def _files(channel: AgentChannel, directory: Path) -> None:
    _each("write 1 KB", 200, lambda: channel.write(b"s", [b"x" * 1000], mode=None, parents=False))
    _each("read 1 KB", 200, lambda: list(channel.read(b"s")))
    _each("stat", 200, lambda: channel.stat(b"s"))
    data = os.urandom(1 << 20) * MEGABYTES
    _throughput("write", lambda: channel.write(b"big", [data], mode=None, parents=False))
    _throughput("read", lambda: sum(map(len, channel.read(b"big"))))
    tar = b"".join(channel.get_tree(b"big"))
    _throughput("get_tree of one file", lambda: sum(map(len, channel.get_tree(b"big"))))
    _throughput("put_tree of one file", lambda: channel.put_tree(b"tree", [tar]))
    for number in range(2000):
        path = directory / "many" / str(number % 50) / str(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 2000)
    many = os.fsencode(directory / "many")
    tar = b"".join(channel.get_tree(many))
    _each("get_tree of 2000 files", 5, lambda: list(channel.get_tree(many)))
    _each("put_tree of 2000 files", 5, lambda: channel.put_tree(b"many", [tar]))
    there = channel.with_base(many)
    _each("save_checkpoint of them", 5, lambda: there.save_checkpoint("many"))
    _each(
        "make and drop a workspace",
        5,
        lambda: channel.drop_workspace(channel.make_workspace("many")),
    )


def _each(what: str, times: int, call: Callable[[], object]) -> None:
    spent = [_seconds(call) for _ in range(times)]
    print(f"{what}: {statistics.median(spent) * 1000:.2f} ms")


def _throughput(what: str, call: Callable[[], object]) -> None:
    spent = statistics.median(_seconds(call) for _ in range(5))
    print(f"{what}: {MEGABYTES * 1.048576 / spent:.0f} MB/s")


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _first_answer_s(python: str, directory: Path) -> float:
    start = time.perf_counter()
    with _agent(python, directory):
        return time.perf_counter() - start


@contextmanager
def _agent(python: str, directory: Path) -> Iterator[tuple[AgentChannel, int]]:
    argv = [python, "-I", str(directory / "agent.pyz"), "-listen", "127.0.0.1:0"]
    argv += ["--base", str(directory / "base"), "--state", str(directory / "state")]
    with (
        subprocess.Popen(argv, stderr=subprocess.PIPE) as process,
        closing(PoolTransport()) as pool,
    ):
        assert process.stderr
        url = "http://" + process.stderr.readline().decode().split()[-1]
        channel = AgentChannel(
            pool, base_url=url, app="app", machine_id="m", token=None, clock=SystemClock()
        )
        channel.health()
        try:
            yield channel, process.pid
        finally:
            process.terminate()


def _memory_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1000


if __name__ == "__main__":
    main()
