"""A sandbox beside docker and beside a bare subprocess, in one run, taken by turns.

    python benchmarks/sandbox.py [--megabytes 100] [--execs 200] [--rounds 7] [--engine ENGINE]

Docker is what DOCKER_HOST names, with its image `busybox`; else a daemon with a data root and
a socket of its own, started for this and ended afterwards, whose image is made of this
computer's busybox. Each container has an ordinary bridge network, as each machine has one of its
own. Without root, `dockerd`, `docker` and `busybox` it is left out, and that is said. Figures are
medians; a ratio below 1 is better than the other.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import filecmp
import itertools
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

sys.path.insert(0, str(Path(__file__).parent.parent))

import pytest_flymachines
from pytest_flymachines.backend import Backend, build
from pytest_flymachines.cassettes import Recorder
from pytest_flymachines.emulator.launch import launch
from pytest_flymachines.machine_config import Identity
from pytest_flymachines.options import OPTIONS
from pytest_flymachines.provision import attach
from pytest_flymachines.provision import launch as provision
from pytest_flymachines.sandbox import Sandbox
from pytest_flymachines.settings import Settings
from pytest_flymachines.sharing import EmulatorAddress, RunInfo
from pytest_flymachines.spec import SandboxSpec
from tests.emulator.engines import dockerd

MIB = 1 << 20
#: Of ours over docker's, and of the client's CPU in ms.
AIMS = {"sandbox ready": 0.5, 'exec("true")': 0.1}
CLIENT_AIM_MS = 0.3


class Way(Protocol):
    """One way to run things in a place of their own."""

    name: str
    #: Seconds until machines could be asked for.
    server_s: float

    def ready(self) -> None:
        """Have one more of them, and use it from now on."""
        ...

    def exec(self) -> None:
        """Run `true` there."""
        ...

    def up(self, local: Path) -> None:
        """Bring a file there."""
        ...

    def down(self, local: Path) -> None:
        """Bring it back."""
        ...


class Ours:
    """Local mode, the whole path of the fixtures."""

    name = "ours"

    def __init__(self, backend: Backend, scratch: Path, server_s: float) -> None:
        self._backend, self._scratch, self.server_s = backend, scratch, server_s
        self._number = itertools.count()
        self._sandbox: Sandbox

    def ready(self) -> None:
        name = f"bench-{next(self._number)}"
        who = Identity(name=name, metadata={"pytest_flymachines_run": "b"}, ttl_s=3600)
        spec = SandboxSpec(app="bench")
        launched = provision(self._backend, spec, who, rootdir=self._scratch)
        self._sandbox = attach(self._backend, spec, launched, rootdir=self._scratch)

    def exec(self) -> None:
        self._sandbox.exec(["true"])

    def up(self, local: Path) -> None:
        self._sandbox.upload(local, "/root/file")

    def down(self, local: Path) -> None:
        self._sandbox.download("/root/file", local)


class Docker:
    """`docker run`, `docker exec`, `docker cp`."""

    name = "docker"

    def __init__(self, url: str, image: str, network: str, server_s: float) -> None:
        self._image, self._network, self.server_s = image, network, server_s
        self._docker = ["docker", "--host", url]
        self.boxes: list[str] = []

    def ready(self) -> None:
        self.boxes.append(f"bench-{os.getpid()}-{len(self.boxes)}")
        place = ["--name", self.boxes[-1], "--network", self._network]
        self.call("run", "-d", *place, self._image, "sleep", "3600")

    def exec(self) -> None:
        self.call("exec", self.boxes[-1], "true")

    def up(self, local: Path) -> None:
        self.call("cp", str(local), f"{self.boxes[-1]}:/root/file")

    def down(self, local: Path) -> None:
        self.call("cp", f"{self.boxes[-1]}:/root/file", str(local))

    def call(self, *arguments: str) -> None:
        subprocess.run([*self._docker, *arguments], check=True, capture_output=True)


class Bare:
    """The floor: a subprocess on this computer, and a copy of the file."""

    name = "bare"

    def __init__(self, scratch: Path) -> None:
        self._there = scratch / "there"
        self.server_s = timed(lambda: subprocess.run([sys.executable, "-c", ""], check=True))

    def ready(self) -> None:
        self.exec()

    def exec(self) -> None:
        subprocess.run(["true"], check=True)

    def up(self, local: Path) -> None:
        shutil.copyfile(local, self._there)

    def down(self, local: Path) -> None:
        shutil.copyfile(self._there, local)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--execs", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--engine", default="auto")
    options = parser.parse_args()
    # as installing does, which some environments forbid to Python itself
    compileall.compile_dir(Path(pytest_flymachines.__file__).parent, quiet=1)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        scratch = Path(name)
        ways: list[Way] = [stack.enter_context(ours(options.engine, scratch))]
        ways += [stack.enter_context(docker(scratch / "dockerd"))] if can_docker() else []
        ways += [Bare(scratch)]
        figures = {"server start": {way.name: [way.server_s] for way in ways}}
        figures |= small(ways, options.rounds, options.execs)
        client_ms = client_cpu_ms(ways[0], options.execs)
        figures |= large(ways, scratch, options.megabytes, options.rounds)
    show(figures, client_ms)


@contextlib.contextmanager
def ours(engine: str, scratch: Path) -> Iterator[Ours]:
    """The server of a local run."""
    begun = time.perf_counter()
    with launch(engine=engine, apps=["bench"]) as emulator:
        server_s = time.perf_counter() - begun
        print(f"engine: {emulator.engine}")
        address = EmulatorAddress(
            api_url=emulator.api_url,
            proxy_url=emulator.proxy_url,
            control_url=emulator.control_url,
            token=emulator.token,
        )
        info = RunInfo(run_id="bench", directory=str(scratch), emulator=address)
        backend = build(local_settings(), info, Recorder(scratch / "none", mode="off"))
        with contextlib.closing(backend):
            yield Ours(backend, scratch, server_s)


def local_settings() -> Settings:
    """The defaults of a local run."""
    values = {option.name: option.default for option in OPTIONS}
    values |= {"cassettes": Path(), "api_url": "", "mode": "local"}
    return Settings(
        **values, chosen="local", why="", token="", proxy_url="", scrub=(), rootdir=Path()
    )


def can_docker() -> bool:
    why = None if os.environ.get("DOCKER_HOST") else dockerd.missing()
    if why is None and shutil.which("docker") is None:
        why = "no docker (Debian: package docker.io)"
    if why:
        print(f"docker is left out: {why}")
    return not why


@contextlib.contextmanager
def docker(directory: Path) -> Iterator[Docker]:
    """A daemon, and the containers that were made there, which go."""
    with contextlib.ExitStack() as stack:
        begun = time.perf_counter()
        if url := os.environ.get("DOCKER_HOST"):
            way = Docker(url, "busybox", "bridge", float("nan"))
        else:
            directory.mkdir()
            url = stack.enter_context(dockerd.daemon(directory))
            server_s = time.perf_counter() - begun
            network = stack.enter_context(dockerd.bridge(url))
            way = Docker(url, dockerd.IMAGE, network, server_s)
        try:
            yield way
        finally:
            way.call("rm", "--force", *way.boxes)


def small(ways: list[Way], rounds: int, execs: int) -> dict[str, dict[str, list[float]]]:
    """A place that is ready, and a command in it; the first round of both warms up."""
    ready: dict[str, list[float]] = {way.name: [] for way in ways}
    execd: dict[str, list[float]] = {way.name: [] for way in ways}
    for _ in range(rounds + 1):
        for way in ways:
            ready[way.name].append(timed(way.ready))
    for _ in range(execs + 1):
        for way in ways:
            execd[way.name].append(timed(way.exec))
    return {
        what: {name: seconds[1:] for name, seconds in by.items()}
        for what, by in (("sandbox ready", ready), ('exec("true")', execd))
    }


def client_cpu_ms(way: Way, execs: int) -> float:
    """CPU time of this process in one exec."""
    begun = time.process_time()
    for _ in range(execs):
        way.exec()
    return (time.process_time() - begun) / execs * 1000


def large(
    ways: list[Way], scratch: Path, megabytes: int, rounds: int
) -> dict[str, dict[str, list[float]]]:
    """A file of bytes that nothing compresses, there and back; nothing counts that changed."""
    file = scratch / "file"
    with file.open("wb") as out:
        for _ in range(megabytes):
            out.write(os.urandom(MIB))
    up: dict[str, list[float]] = {way.name: [] for way in ways}
    down: dict[str, list[float]] = {way.name: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            back = scratch / f"back-{way.name}"
            back.unlink(missing_ok=True)
            os.sync()  # what the last copy left to be written is not this one's to wait for
            up[way.name].append(timed(lambda way=way: way.up(file)))
            os.sync()
            down[way.name].append(timed(lambda way=way, back=back: way.down(back)))
            assert filecmp.cmp(file, back, shallow=False)
    return {f"{megabytes} MB up": up, f"{megabytes} MB down": down}


def timed(action: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def show(figures: dict[str, dict[str, list[float]]], client_ms: float) -> None:
    heads = ["ours", "docker", "bare", "ours/docker", "ours/bare", "aim"]
    print(f"{'milliseconds':20}" + "".join(f"{head:>13}" for head in heads))
    for what, measured in figures.items():
        found = {name: statistics.median(seconds) for name, seconds in measured.items()}
        mine = found["ours"]
        others = [found.get("docker", float("nan")), found["bare"]]
        cells = [f"{seconds * 1000:13.2f}" for seconds in (mine, *others)]
        cells += [f"{mine / seconds:13.3f}" for seconds in others]
        aim = AIMS.get(what)
        print(f"{what:20}" + "".join(cells) + (f"{f'<= {aim}':>13}" if aim else ""))
    print(f"CPU of the client in an exec: {client_ms:.3f} ms (aim: <= {CLIENT_AIM_MS} ms)")


if __name__ == "__main__":
    main()
