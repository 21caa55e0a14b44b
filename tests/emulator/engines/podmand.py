"""A podman service of our own for tests, with the image of `dockerd` in it.

Podman changes the packet filter and settings of the network that it runs in, and leaves them so:
only for tests in a network namespace of their own.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.emulator.engines.dockerd import client_of, root_file_system

IMAGE = "docker.io/test/busybox:latest"

_RLIMITS = {"nofile": 10240, "nproc": 4096}  # Podman asks for more than some roots may have.
_CONFIG = """
[containers]
default_ulimits = [{limits}]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


def missing() -> str | None:
    """Why none can be run here, or None."""
    if os.geteuid() != 0:
        return "the tests of podman need root"
    for program in ("podman", "runc", "netavark", "catatonit", "busybox", "ip", "unshare"):
        # Some are helpers that lie where only podman looks.
        if not (shutil.which(program) or Path("/usr/lib/podman", program).exists()):
            return f"no {program} (Debian: packages podman, runc, netavark, catatonit, iproute2)"
    return None


@contextlib.contextmanager
def service() -> Iterator[str]:
    """Run one; gives what DOCKER_HOST should be."""
    # Not one of pytest's directories: podman refuses paths of more than 50 characters.
    directory = Path(tempfile.mkdtemp(prefix="podman-"))
    url = f"unix://{directory}/podman.sock"
    limits = ", ".join(f'"{name}={count}:{count}"' for name, count in _RLIMITS.items())
    (directory / "containers.conf").write_text(_CONFIG.format(limits=limits))
    # ends with us, also when we are killed
    podman = ["setpriv", "--pdeathsig", "TERM", "--"]
    podman += ["podman", "--root", f"{directory}/root", "--runroot", f"{directory}/run"]
    podman += ["--network-config-dir", f"{directory}/networks", "--tmpdir", f"{directory}/tmp"]
    environment = {**os.environ, "CONTAINERS_CONF": str(directory / "containers.conf")}
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [*podman, "system", "service", "--time=0", url],
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
    try:
        client = client_of(url, process, directory / "log")
        client.api.import_image_from_data(
            root_file_system(), repository="test/busybox", changes=["CMD sleep 9999"]
        )
        client.close()
        yield url
    finally:
        process.terminate()
        process.wait(60)
        cleaning = [*podman, "system", "reset", "--force"]
        subprocess.run(cleaning, env=environment, check=False, capture_output=True)
        shutil.rmtree(directory, ignore_errors=True)
