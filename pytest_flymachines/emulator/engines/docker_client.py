"""Reaching a Docker or podman daemon, and what of it is ours."""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
import socket
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, DockerException, NotFound

from pytest_flymachines.emulator.engines.base import EngineError, GuestFile

__all__ = [
    "OWNER",
    "archive",
    "connect",
    "explained",
    "import_probe_image",
    "owner_label",
    "remove_all",
    "sweep",
]

OWNER = "pytest-flymachines.owner"
"""Label of every container, volume and network of an engine; its value says which process's."""

_CONNECTIONS = 64
_KNOCK_S = 10.0


def connect() -> Any:
    """A client of DOCKER_HOST, or of the first of the usual sockets that answers.

    Raises:
        EngineError: None does.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.geteuid()}")
    sockets = [
        "/var/run/docker.sock",
        f"{runtime}/docker.sock",
        "/run/podman/podman.sock",
        f"{runtime}/podman/podman.sock",
    ]
    named = os.environ.get("DOCKER_HOST")
    failures = []
    for url in [named] if named else [f"unix://{path}" for path in sockets if _is_there(path)]:
        environment = {**os.environ, "DOCKER_HOST": url}
        try:
            _knock(url)
            client = docker.from_env(environment=environment, max_pool_size=_CONNECTIONS)
            client.ping()
        except (DockerException, OSError) as error:
            failures.append(f"{url}: {error}")
        else:
            return client.api
    raise EngineError(
        "; ".join(failures) or f"no DOCKER_HOST, and no socket at {', '.join(sockets)}"
    )


def owner_label() -> str:
    """Of an engine of this process: `PID-START-RANDOM`."""
    return f"{os.getpid()}-{_started(os.getpid())}-{secrets.token_hex(4)}"


def sweep(api: Any) -> None:
    """Remove what engines of processes that are gone have left."""
    mine = {"label": OWNER}
    found = api.containers(all=True, filters=mine) + (api.volumes(filters=mine)["Volumes"] or [])
    found += api.networks(filters=mine) + api.images(filters=mine)
    for label in {one["Labels"][OWNER] for one in found}:
        pid, started, _ = label.split("-")
        if _started(int(pid)) != started:
            remove_all(api, label)


def remove_all(api: Any, label: str) -> None:
    """Remove the containers, images, volumes and networks of one engine."""
    mine = {"label": f"{OWNER}={label}"}
    for container in api.containers(all=True, filters=mine):
        _ignoring(api.remove_container, container["Id"], force=True, v=True)
    for image in api.images(all=True, filters=mine):
        _ignoring(api.remove_image, image["Id"], force=True)
    for volume in api.volumes(filters=mine)["Volumes"] or ():
        _ignoring(api.remove_volume, volume["Name"], force=True)
    for network in api.networks(filters=mine):
        _ignoring(api.remove_network, network["Id"])


def archive(files: Iterable[GuestFile]) -> bytes:
    """A tar archive of files, relative to `/`, owned by root; of two of one path, the last."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for file in {file.path: file for file in files}.values():
            member = tarfile.TarInfo(file.path.lstrip("/"))
            member.size = len(file.content)
            member.mode = file.mode
            tar.addfile(member, io.BytesIO(file.content))
    return buffer.getvalue()


def import_probe_image(api: Any, label: str) -> str:
    """An image of this computer's /bin/sh and its libraries: a probe needs no registry.

    Returns:
        Its id.
    """
    shell = Path("/bin/sh").resolve()
    listed = subprocess.run(["ldd", shell], capture_output=True, text=True, check=False).stdout
    libraries = {word for line in listed.splitlines() for word in line.split() if word[0] == "/"}
    files = [GuestFile("/bin/sh", shell.read_bytes(), 0o755)]
    files += [GuestFile(path, Path(path).read_bytes(), 0o755) for path in sorted(libraries)]
    answer = api.import_image_from_data(
        archive(files), repository=f"pytest-flymachines-{label}", changes=f"LABEL {OWNER}={label}"
    )
    image: str = json.loads(answer.splitlines()[-1])["status"]
    return image


def explained(error: Exception) -> str:
    """The text of an error of the SDK's, with what to do where the daemon is gone or full."""
    if isinstance(error, OSError) and not isinstance(error, DockerException):
        return f"the Docker daemon does not answer any more: is it running? ({error})"
    if "no space left on device" in str(error).lower():
        return f"{error}; `docker system df` shows what has the daemon's room, `prune` frees it"
    return str(error)


def _is_there(path: str) -> bool:
    return os.access(path, os.R_OK | os.W_OK)


def _knock(url: str) -> None:
    """See whether somebody listens and answers: the SDK leaks a socket, or waits for a minute."""
    if url.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(_KNOCK_S)
            sock.connect(url.removeprefix("unix://"))
            try:
                sock.sendall(b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n")
                sock.recv(1)
            except TimeoutError:
                raise TimeoutError(
                    f"the daemon takes connections but has not answered within {_KNOCK_S:g} s; "
                    "restart it"
                ) from None


def _started(pid: int) -> str:
    """When a process started, in ticks since boot; empty if there is none."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text("latin-1").rpartition(")")[2].split()[19]
    return ""


def _ignoring(call: Any, *arguments: Any, **options: Any) -> None:
    with contextlib.suppress(NotFound, APIError):
        call(*arguments, **options)
