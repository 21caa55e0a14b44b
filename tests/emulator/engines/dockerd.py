"""A Docker daemon of our own for tests, with an image made of this computer's busybox."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import shutil
import socket
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import docker
from docker.errors import DockerException

IMAGE = "test/busybox:1"

_COUNT = itertools.count()

_APPLETS = (
    "cat chmod cut dd echo false grep head httpd id ip kill ls mkdir mount nc nohup od printf ps "
    "pwd rm setsid sh sleep test timeout touch true tty wc"
)


def missing() -> str | None:
    """Why no daemon can be run here, or None."""
    if os.geteuid() != 0:
        return "a Docker daemon needs root"
    for program in ("dockerd", "busybox"):
        if shutil.which(program) is None:
            return f"no {program} (Debian: packages docker.io and busybox-static)"
    return None


@contextlib.contextmanager
def daemon(
    directory: Path, images: Mapping[str, Callable[[], bytes]] | None = None
) -> Iterator[str]:
    """Run one, with images in it; gives what DOCKER_HOST should be.

    `images` makes a root file system for each tag; by default that of busybox is IMAGE's.

    It neither makes docker0 nor touches the packet filter of this computer; a container that
    shall have a network of the ordinary kind gets one of `bridge`.
    """
    url = f"unix://{directory}/docker.sock"
    # one process may have several
    number = os.getpid() * 4 + next(_COUNT) % 4
    groups = f"pytest-flymachines-docker-{number}"
    # ends with us, also when we are killed
    command = ["setpriv", "--pdeathsig", "TERM", "--"]
    command += ["dockerd", "--host", url, "--bridge=none", f"--cgroup-parent=/{groups}"]
    command += ["--data-root", f"{directory}/data", "--exec-root", f"{directory}/exec"]
    command += ["--pidfile", f"{directory}/pid"]
    # daemons that run at the same time do not know of each other's networks
    pool = f"10.{100 + number % 150}.{number // 150 % 4 * 64}.0/18"
    command += ["--default-address-pool", f"base={pool},size=24"]
    command += ["--iptables=false", "--ip6tables=false", "--ip-masq=false", "--ip-forward=false"]
    with (directory / "dockerd.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        client = client_of(url, process, directory / "dockerd.log")
        for name, make in (images or {IMAGE: root_file_system}).items():
            repository, _, tag = name.partition(":")
            client.api.import_image_from_data(
                make(), repository=repository, tag=tag, changes=["CMD sleep 9999"]
            )
        client.close()
        yield url
    finally:
        with contextlib.suppress(DockerException), closing(docker.DockerClient(url)) as client:
            client.networks.prune()  # the daemon would leave their bridges behind
        process.terminate()
        process.wait(60)
        for group in Path("/sys/fs/cgroup").glob(f"*/{groups}"):
            group.rmdir()


@contextlib.contextmanager
def bridge(url: str) -> Iterator[str]:
    """A network of the kind that `docker run` gives by default; its name."""
    with closing(docker.DockerClient(url)) as client:
        network = client.networks.create(f"bridge-{os.getpid()}", driver="bridge")
        try:
            yield str(network.name)
        finally:
            network.remove()


def client_of(url: str, process: subprocess.Popen[bytes], log: Path) -> Any:
    """A client, once the daemon listens."""
    deadline = time.monotonic() + 60
    while True:
        with socket.socket(socket.AF_UNIX) as sock, contextlib.suppress(OSError):
            sock.connect(url.removeprefix("unix://"))
            return docker.DockerClient(url)
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def root_file_system() -> bytes:
    """An image's: this computer's busybox."""
    busybox = shutil.which("busybox")
    assert busybox is not None
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(busybox, "bin/busybox")
        for name in _APPLETS.split():
            link = tarfile.TarInfo(f"bin/{name}")
            link.type = tarfile.SYMTYPE
            link.linkname = "busybox"
            tar.addfile(link)
        for name, content in {
            "etc/passwd": "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/tmp:/bin/sh\n",
            "etc/group": "root:x:0:\ndaemon:x:1:\n",
            "root/.keep": "",
        }.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content.encode()))
        tmp = tarfile.TarInfo("tmp")
        tmp.type, tmp.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(tmp)
    return buffer.getvalue()
