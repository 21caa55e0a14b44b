"""Trees up and down beside `docker cp` of the same: time, and memory held meanwhile.

    python benchmarks/trees.py [--files 10000] [--megabytes 500] [--rounds 3] [--engine ENGINE]

A Docker daemon with a data root and a socket of its own is started, and ended afterwards; its
image is made of this computer's busybox. Needs root, `dockerd`, `docker` and `busybox`; says so
and measures ours alone where they are missing. Both are machines that run, and where they keep
their files is shown. Rounds of both are taken by turns, who is first too, and medians are shown;
a ratio below 1 is better than docker. Memory is how far each process's resident memory rose
above what it was before the first copy.
"""

from __future__ import annotations

import argparse
import contextlib
import filecmp
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from pytest_flymachines.sandbox import Sandbox
from pytest_flymachines.spec import SandboxSpec
from tests.emulator.engines import dockerd
from tests.sandbox.world import APP, open_world

LIMIT_MB = 64
MIB = 1 << 20
Copy = Callable[[Path, str], object]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engine", default="auto")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        directory = Path(name)
        sources = {
            f"{options.files} files": many(directory / "many", options.files),
            f"{options.megabytes} MB file": large(directory / "large", options.megabytes),
        }
        sandbox, pids = stack.enter_context(ours(options.engine))
        memory = {what: Memory(pid) for what, pid in pids.items()}
        ways: dict[str, tuple[Copy, Copy]] = {
            "ours": (
                lambda local, remote: sandbox.upload(local, remote),
                lambda local, remote: sandbox.download(remote, local),
            )
        }
        if why := dockerd.missing():
            print(f"docker is left out: {why}")
        else:
            ways["docker"] = stack.enter_context(docker(directory / "dockerd"))
        show({what: measure(source, ways, options.rounds) for what, source in sources.items()})
        print(f"\nmemory above idle, MB (limit {LIMIT_MB}):")
        for what, used in memory.items():
            print(f"  {what:10} idle {used.idle_mb:6.1f}   peak +{used.risen_mb():.1f}")


def many(directory: Path, count: int) -> Path:
    """Small files of bytes that nothing compresses, a hundred in a directory."""
    chance = random.Random(1)
    for number in range(count):
        path = directory / f"{number // 100:03}" / f"file-{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(chance.randrange(100, 4000)))
    return directory


def large(path: Path, megabytes: int) -> Path:
    with path.open("wb") as out:
        for _ in range(megabytes):
            out.write(os.urandom(MIB))
    return path


@contextlib.contextmanager
def ours(engine: str) -> Iterator[tuple[Sandbox, dict[str, int]]]:
    """A sandbox over its agent, and the processes that bytes pass through."""
    with open_world(engine) as world:
        spec = SandboxSpec(app=APP)
        sandbox = world.sandbox("agent", world.machine(spec, "trees"), spec)
        where = sandbox.exec(["stat", "-f", "-c", "%T", "."]).stdout.strip()
        print(f"engine: {world.emulator.engine}, files on {where}")
        pids = {"client": os.getpid(), "emulator": world.emulator.pid, "agent": agent(sandbox)}
        yield sandbox, pids


def agent(sandbox: Sandbox) -> int:
    """The agent's process as this computer counts it, found by what only it has open."""
    inside = sandbox.exec("readlink /proc/$PPID/ns/pid; echo $PPID").stdout.split()
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            spaces = str((status.parent / "ns/pid").readlink())
            numbers = status.read_text().partition("NSpid:")[2].partition("\n")[0].split()
            if [spaces, numbers[-1]] == inside:
                return int(status.parent.name)
    raise SystemExit("the agent's process was not found")


@contextlib.contextmanager
def docker(directory: Path) -> Iterator[tuple[Copy, Copy]]:
    """`docker cp` in and out of a container of a daemon of our own."""
    directory.mkdir()
    with dockerd.daemon(directory) as url:

        def call(*arguments: str) -> str:
            command = ["docker", "-H", url, *arguments]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            return done.stdout.strip()

        call("run", "-d", "--name", "box", "--network=none", dockerd.IMAGE, "sleep", "99999")
        print(call("info", "-f", "docker {{.ServerVersion}}, files on {{.Driver}}"))
        try:
            yield (
                lambda local, remote: call("cp", str(local), f"box:/root/{remote}"),
                lambda local, remote: call("cp", f"box:/root/{remote}", str(local)),
            )
        finally:
            call("rm", "-f", "box")


def measure(
    source: Path, ways: dict[str, tuple[Copy, Copy]], rounds: int
) -> dict[str, tuple[float, float]]:
    """Median seconds up and down of each way; each round is a copy to a new name.

    Nothing is deleted meanwhile: ext4 is slow to make files where it has just deleted some.
    """
    times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in ways}
    for number in range(rounds):
        turns = list(ways.items())[:: -1 if number % 2 else 1]
        for name, (upload, download) in turns:
            back = source.with_name(f"{source.name}-{name}-{number}")
            settle(source)
            times[name][0].append(timed(upload, source, f"{source.name}-{number}"))
            settle(source)
            times[name][1].append(timed(download, back, f"{source.name}-{number}"))
            check(source, back)
    return {
        name: (statistics.median(up), statistics.median(down)) for name, (up, down) in times.items()
    }


def settle(source: Path) -> None:
    """Let no copy wait for what the last one left to be written, nor for memory.

    A virtual machine's host gives it memory when it is first used, which takes longer than to
    write a file. What a process has just used and given back is there already.
    """
    os.sync()
    files = [source] if source.is_file() else source.rglob("*")
    megabytes = 64 + 2 * sum(file.stat().st_size for file in files) // MIB
    subprocess.run([sys.executable, "-c", f"b'x' * ({megabytes} << 20)"], check=True)


def timed(copy: Copy, local: Path, remote: str) -> float:
    start = time.perf_counter()
    copy(local, remote)
    return time.perf_counter() - start


def check(source: Path, back: Path) -> None:
    """Nothing counts that did not arrive whole."""
    if source.is_file():
        assert filecmp.cmp(source, back, shallow=False)
    else:
        names = sorted(str(p.relative_to(source)) for p in source.rglob("*"))
        assert names == sorted(str(p.relative_to(back)) for p in back.rglob("*"))
        files = [name for name in names if (source / name).is_file()]
        assert filecmp.cmpfiles(source, back, files, shallow=False) == (files, [], [])


class Memory:
    """How far a process's resident memory rises from now on."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        # resets the high-water mark (https://man7.org/linux/man-pages/man5/proc.5.html)
        Path(f"/proc/{pid}/clear_refs").write_text("5")
        self.idle_mb = self._field("VmRSS")

    def risen_mb(self) -> float:
        """Megabytes at the highest point."""
        return self._field("VmHWM") - self.idle_mb

    def _field(self, name: str) -> float:
        status = Path(f"/proc/{self._pid}/status").read_text()
        return int(status.partition(f"{name}:")[2].split()[0]) / 1024


def show(figures: dict[str, dict[str, tuple[float, float]]]) -> None:
    print(f"\n{'seconds':24}{'ours':>10}{'docker cp':>12}{'ours/docker':>14}")
    for what, found in figures.items():
        for index, direction in enumerate(("up", "down")):
            mine = found["ours"][index]
            cells = f"{mine:10.2f}"
            if theirs := found.get("docker"):
                cells += f"{theirs[index]:12.2f}{mine / theirs[index]:14.2f}"
            print(f"{what + ' ' + direction:24}{cells}")


if __name__ == "__main__":
    main()
