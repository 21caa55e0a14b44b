"""A sandbox beside docker and beside a bare subprocess, in one run.

    python benchmarks/sandbox.py [--megabytes 100] [--execs 200]

Docker is measured where a daemon answers and an image can be had: the local image `busybox`,
or one made from a static busybox on PATH. Ratios below 1 are better than docker.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pytest_flymachines.backend import build
from pytest_flymachines.cassettes import Recorder
from pytest_flymachines.emulator.launch import launch
from pytest_flymachines.machine_config import Identity
from pytest_flymachines.options import OPTIONS
from pytest_flymachines.provision import attach
from pytest_flymachines.provision import launch as provision
from pytest_flymachines.settings import Settings
from pytest_flymachines.sharing import EmulatorAddress, RunInfo
from pytest_flymachines.spec import SandboxSpec

MIB = 1 << 20


def timed(action: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def median(action: Callable[[], object], times: int) -> float:
    """Median seconds of many calls, after a few to warm up."""
    for _ in range(3):
        action()
    return statistics.median(timed(action) for _ in range(times))


def ours(megabytes: int, execs: int, file: Path, back: Path) -> dict[str, float]:
    """Our figures, in local mode with the engine that `auto` takes."""
    found: dict[str, float] = {}
    start = time.perf_counter()
    with launch(apps=["bench"]) as emulator:
        found["server start"] = time.perf_counter() - start
        print(f"engine: {emulator.engine}")
        address = EmulatorAddress(
            api_url=emulator.api_url,
            proxy_url=emulator.proxy_url,
            control_url=emulator.control_url,
            token=emulator.token,
        )
        with tempfile.TemporaryDirectory() as scratch:
            info = RunInfo(run_id="bench", directory=scratch, emulator=address)
            recorder = Recorder(Path(scratch) / "none", mode="off")
            backend = build(local_settings(), info, recorder)
            spec = SandboxSpec(app="bench")
            ready = []
            for n in range(5):
                who = Identity(
                    name=f"bench-{n}", metadata={"pytest_flymachines_run": "b"}, ttl_s=600
                )
                start = time.perf_counter()
                launched = provision(backend, spec, who, rootdir=Path(scratch))
                sandbox = attach(backend, spec, launched, rootdir=Path(scratch))
                ready.append(time.perf_counter() - start)
            found["sandbox ready"] = statistics.median(ready)
            found["exec true"] = median(lambda: sandbox.exec(["true"]), execs)
            client_cpu = time.process_time()
            for _ in range(execs):
                sandbox.exec(["true"])
            found["client CPU of an exec"] = (time.process_time() - client_cpu) / execs
            found[f"{megabytes} MB up"] = timed(lambda: sandbox.upload(file, "big"))
            found[f"{megabytes} MB down"] = timed(lambda: sandbox.download("big", back))
            assert back.stat().st_size == file.stat().st_size
    return found


def local_settings() -> Settings:
    """The defaults of a local run."""
    values = {option.name: option.default for option in OPTIONS}
    values |= {"cassettes": Path(), "api_url": "", "mode": "local"}
    return Settings(
        **values, chosen="local", why="", token="", proxy_url="", scrub=(), rootdir=Path()
    )


def docker(megabytes: int, execs: int, file: Path, back: Path) -> dict[str, float]:
    """The same with `docker run`, `docker exec`, `docker cp`; empty without a daemon."""
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "info"], capture_output=True).returncode
    ):
        print("docker: no daemon answers, left out")
        return {}
    image = docker_image()
    names = [f"bench-{os.getpid()}-{n}" for n in range(5)]

    def call(*args: str) -> None:
        subprocess.run(["docker", *args], check=True, capture_output=True)

    try:
        ready = [
            timed(lambda name=name: call("run", "-d", "--name", name, image, "sleep", "600"))
            for name in names
        ]
        name = names[0]
        found = {
            "sandbox ready": statistics.median(ready),
            "exec true": median(lambda: call("exec", name, "true"), max(10, execs // 10)),
            f"{megabytes} MB up": timed(lambda: call("cp", str(file), f"{name}:/big")),
            f"{megabytes} MB down": timed(lambda: call("cp", f"{name}:/big", str(back))),
        }
    finally:
        subprocess.run(["docker", "rm", "-f", *names], capture_output=True)
    return found


def docker_image() -> str:
    """A local image; made from a static busybox where there is none."""
    if subprocess.run(["docker", "image", "inspect", "busybox"], capture_output=True).returncode:
        busybox = shutil.which("busybox")
        if busybox is None:
            raise SystemExit("no image busybox, and no busybox on PATH to make one from")
        with tempfile.TemporaryDirectory() as directory:
            bin_ = Path(directory) / "bin"
            bin_.mkdir()
            shutil.copy(busybox, bin_ / "busybox")
            for name in ("sh", "true", "sleep", "cat"):
                (bin_ / name).symlink_to("busybox")
            tar = subprocess.Popen(["tar", "-C", directory, "-c", "."], stdout=subprocess.PIPE)
            subprocess.run(["docker", "import", "-", "busybox"], stdin=tar.stdout, check=True)
            tar.wait()
    return "busybox"


def bare(megabytes: int, execs: int, file: Path, back: Path) -> dict[str, float]:
    """The floor: a subprocess and a copy of the file."""
    return {
        "exec true": median(lambda: subprocess.run(["true"], check=True), execs),
        f"{megabytes} MB up": timed(lambda: shutil.copyfile(file, back)),
        f"{megabytes} MB down": timed(lambda: shutil.copyfile(back, str(back) + "2")),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--execs", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        file, back = Path(directory) / "file", Path(directory) / "back"
        with file.open("wb") as out:
            for _ in range(options.megabytes):
                out.write(os.urandom(MIB))
        sizes = (options.megabytes, options.execs, file, back)
        columns = {"ours": ours(*sizes), "docker": docker(*sizes), "bare": bare(*sizes)}
    heads = ("ours ms", 10), ("docker ms", 12), ("bare ms", 10), ("ours/docker", 13)
    print(" " * 24 + "".join(f"{head:>{width}}" for head, width in (*heads, ("ours/bare", 11))))
    for name, mine in columns["ours"].items():
        theirs, floor = columns["docker"].get(name), columns["bare"].get(name)
        cells = [f"{mine * 1e3:10.2f}"]
        cells += [f"{value * 1e3:{width}.2f}" if value else " " * width
                  for value, width in ((theirs, 12), (floor, 10))]  # fmt: skip
        cells += [f"{mine / value:{width}.3f}" if value else " " * width
                  for value, width in ((theirs, 13), (floor, 11))]  # fmt: skip
        print(f"{name:24}{''.join(cells)}")


if __name__ == "__main__":
    main()
