"""Machines as containers of a Docker or podman daemon, from the images that configs name."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakSet

from docker.errors import DockerException, NotFound
from docker.errors import ImageNotFound as DockerImageNotFound

from pytest_flymachines.emulator.engines import trial
from pytest_flymachines.emulator.engines.base import (
    Door,
    EngineError,
    ImageNotFound,
    MachineConfigForEngine,
    Probe,
)
from pytest_flymachines.emulator.engines.cgroups import pids_limit
from pytest_flymachines.emulator.engines.docker_client import (
    OWNER,
    archive,
    connect,
    explained,
    import_probe_image,
    owner_label,
    remove_all,
    sweep,
)
from pytest_flymachines.emulator.engines.docker_disks import binds
from pytest_flymachines.emulator.engines.docker_exec import unexecutable
from pytest_flymachines.emulator.engines.docker_groups import SharedLimits
from pytest_flymachines.emulator.engines.docker_images import digest, inspected
from pytest_flymachines.emulator.engines.docker_machine import DockerMachine
from pytest_flymachines.emulator.engines.docker_network import Link, Networks
from pytest_flymachines.emulator.engines.docker_probe import WAIT, try_one
from pytest_flymachines.emulator.engines.docker_words import command, oci_config
from pytest_flymachines.emulator.engines.removal import remove_tree

__all__ = ["DockerEngine"]

_THREADS = 64
_PODMAN_NOTES = (
    "podman does not keep networks apart: machines reach those of other 6PN networks",
    "with podman an exec needs /bin/sh, and its output ends with its program",
    "with podman a main program that is missing exits with 1",
)
_PEER_TRIES, _PEER_PAUSE_S = 40, 0.05
_MARK = "container"
"""File in a machine's directory with the id of the container that has its root file system."""


class DockerEngine:
    """Containers; see `docs/engines.md`.

    Args:
        directory: For what all machines share; private to the user.
    """

    name = "docker"
    honours_image = True
    takes_devices = False
    sizes_root = False

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._label = owner_label()
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="docker")
        self._lock = asyncio.Lock()
        self._client: Any = None
        self._cpus = 1
        self._podman = False
        self._shared_limits: SharedLimits | None = None
        self._hollow_image = ""
        self._watcher: subprocess.Popen[bytes] | None = None
        self._networks = Networks(self._label, self._call)
        self._machines: WeakSet[DockerMachine] = WeakSet()

    async def admit(self, doors: Sequence[Door]) -> None:
        """As in `Engine.admit`, at each network's gateway."""
        self._networks.doors = doors

    async def peer(self, address: str) -> str:
        """As in `Engine.peer`; a machine that starts is known a moment after it runs."""
        for _ in range(_PEER_TRIES):
            for machine in self._machines:
                if address in machine.addresses:
                    return machine.private_ip
            await asyncio.sleep(_PEER_PAUSE_S)
        return address

    async def open(self, door: Door) -> Callable[[], None] | None:
        """As in `Engine.open`: at this computer's end of the network, which root may name so."""
        return self._networks.open(door)

    async def probe(self) -> Probe:
        """As in `Engine.probe`; with an image made of this computer's shell."""
        try:
            api = await self._api()
            image = await self._call(import_probe_image, api, self._label)
            attempt = functools.partial(try_one, self, image)
            (outcome, reachable), no_disk = await trial.with_disk_or_without(attempt)
            await self._call(api.remove_image, image, force=True)
        except (EngineError, DockerException, OSError) as error:
            return Probe(works=False, why=str(error))
        if outcome.exit_code != 7:
            return Probe(works=False, why=f"`exit 7` in a container ended as {outcome}")
        if not reachable:
            return Probe(
                works=False,
                why="containers have no address that this process can reach, as with Docker "
                "Desktop and rootless daemons",
            )
        self.takes_devices = not no_disk
        notes = _PODMAN_NOTES if self._podman else ()
        return Probe(works=True, notes=notes + trial.unlimited(no_disk))

    async def resolve_image(self, image: str) -> str:
        """As in `Engine.resolve_image`; the image is pulled if the daemon does not have it."""
        try:
            found = await self._image(image)
        except (DockerImageNotFound, NotFound) as error:
            raise ImageNotFound(f"image {image}: {error}") from error
        except (DockerException, OSError) as error:
            raise EngineError(f"image {image}: {explained(error)}") from error
        return digest(found, image)

    async def image_config(self, image: str) -> bytes:
        """As in `Engine.image_config`, without the history."""
        try:
            return oci_config(await self._image(image))
        except (DockerException, OSError) as error:
            raise EngineError(f"image {image}: {explained(error)}") from error

    async def start(self, machine: MachineConfigForEngine) -> DockerMachine:
        """As in `Engine.start`."""
        try:
            return await self._start(machine)
        except (DockerException, OSError) as error:
            raise EngineError(f"container for {machine.id}: {explained(error)}") from error

    async def discard(self, directory: Path) -> None:
        """As in `Engine.discard`."""
        await self._remove_container(directory)
        if self._shared_limits is not None:
            await self._call(self._shared_limits.remove, directory)
        await asyncio.to_thread(remove_tree, directory)

    async def close(self) -> None:
        """As in `Engine.close`."""
        self._networks.close()
        if self._client is not None:
            # Of a daemon that is gone: what is left there is removed by the next engine.
            with contextlib.suppress(DockerException, OSError):
                await self._call(remove_all, self._client, self._label)
            if self._shared_limits is not None:
                await self._call(self._shared_limits.close)
                self._shared_limits = None  # `discard` is still called, for the emulator's own
            self._client.close()
            self._client = None
        if self._watcher is not None:
            self._watcher.kill()
            await asyncio.to_thread(self._watcher.wait)
            assert self._watcher.stdin is not None
            self._watcher.stdin.close()
        self._pool.shutdown()

    async def _start(self, machine: MachineConfigForEngine) -> DockerMachine:
        api = await self._api()
        if machine.hollow:
            image = await self._image(await self._hollow())
            machine = replace(machine, argv=WAIT)
        else:
            image = await self._image(machine.image)
        image_id = await self._kept(machine.directory) or image["Id"]
        argv = command(machine, machine.image, image["Config"])
        placed = await self._place(api, machine)
        created = await self._call(
            api.create_container,
            image_id,
            entrypoint=argv[:1],
            command=argv[1:],
            name=f"pytest-flymachines-{self._label}-{machine.id}-{os.urandom(3).hex()}",
            user=machine.user or "",
            tty=machine.tty,
            environment=dict(machine.env),
            labels={OWNER: self._label},
            use_config_proxy=False,
            **placed,
        )
        container = created["Id"]
        await self._remove_container(machine.directory)
        (machine.directory / _MARK).write_text(container)
        if machine.files:
            await self._call(api.put_archive, container, "/", archive(machine.files))
        group = placed["host_config"].get("CgroupParent")
        running = DockerMachine(
            api,
            self._pool,
            container,
            machine,
            label=self._label,
            podman=self._podman,
            group=group,
            link=await self._link(machine),
        )
        self._machines.add(running)
        others = [
            replace(
                program,
                argv=command(program, machine.image, image["Config"]),
                user=program.user or image["Config"].get("User") or "0",
            )
            for program in machine.others
        ]
        try:
            await running.start(others)
        except EngineError as error:
            if (code := unexecutable(str(error))) is None:
                raise
            running.failed(code, str(error))
        return running

    async def _place(self, api: Any, machine: MachineConfigForEngine) -> dict[str, Any]:
        """Limits and network; the network of another container comes with name and resolver."""
        host_config = functools.partial(
            api.create_host_config,
            mem_limit=f"{machine.memory_mb}m",
            memswap_limit=f"{machine.memory_mb + machine.swap_mb}m",
            nano_cpus=min(machine.cpus, self._cpus) * 10**9,
            pids_limit=pids_limit(machine.memory_mb),
            binds=await self._call(binds, api, self._label, machine.mounts),
            init=True,
            log_config={"Type": "none", "Config": {}},
            cgroup_parent=await self._group(machine),
        )
        if isinstance(machine.beside, DockerMachine):
            network_mode = f"container:{machine.beside.container}"
            return {"host_config": host_config(network_mode=network_mode)}
        async with self._lock:
            network = await self._networks.of(api, machine)
        # The daemon chooses the IPv4 address only when the container starts.
        own = {"fly-global-services": "0.0.0.0"}
        if network.has_6pn:
            own["fly-local-6pn"] = machine.private_ip
        endpoint = api.create_endpoint_config(**network.link(machine).endpoint)
        return {
            "hostname": machine.hostname,
            "networking_config": api.create_networking_config({network.id: endpoint}),
            "host_config": host_config(
                extra_hosts=own | network.hosts,
                dns=list(machine.nameservers) or network.nameservers or None,
                dns_search=list(machine.searches) or None,
                dns_opt=list(machine.resolver_options) or None,
            ),
        }

    async def _link(self, machine: MachineConfigForEngine) -> Link | None:
        """What a machine is cut off from while it is suspended; podman cannot do that."""
        if self._podman or isinstance(machine.beside, DockerMachine):
            return None
        async with self._lock:
            return (await self._networks.of(self._client, machine)).link(machine)

    async def _group(self, machine: MachineConfigForEngine) -> str | None:
        """The control group of a machine of several containers."""
        if isinstance(machine.beside, DockerMachine):
            return machine.beside.group
        if not machine.hollow or self._shared_limits is None:
            return None
        around = self._shared_limits.around
        group: str | None = await self._call(
            around, machine.directory, machine.id, machine.memory_mb, machine.swap_mb
        )
        return group

    async def _hollow(self) -> str:
        """The image of machines that only wait, made when the first is needed."""
        async with self._lock:
            if not self._hollow_image:
                make = functools.partial(import_probe_image, self._client, self._label)
                self._hollow_image = await self._call(make)
        return self._hollow_image

    async def _image(self, image: str) -> Any:
        """What the daemon knows of an image, pulled if it has none of that name."""
        return await self._call(inspected, await self._api(), image)

    async def _kept(self, directory: Path) -> str | None:
        """An image of the root file system of the boot before, if the directory was kept."""
        mark = directory / _MARK
        if not mark.exists():
            return None
        changes = f"LABEL {OWNER}={self._label}"
        committed = await self._call(self._client.commit, mark.read_text(), changes=changes)
        image: str = committed["Id"]
        return image

    async def _remove_container(self, directory: Path) -> None:
        mark = directory / _MARK
        if mark.exists() and self._client is not None:
            try:
                await self._call(
                    self._client.remove_container, mark.read_text(), force=True, v=True
                )
            except NotFound:
                pass
            except (DockerException, OSError) as error:
                raise EngineError(f"container of {directory}: {explained(error)}") from error
            mark.unlink()

    async def _api(self) -> Any:
        async with self._lock:
            if self._client is None:
                client = await self._call(connect)
                await self._call(sweep, client)
                info = await self._call(client.info)
                self._cpus = info["NCPU"]
                version = await self._call(client.version)
                self._podman = "podman" in str(version.get("Components")).lower()
                # podman's monitors stay in such a group for longer than their containers
                self._shared_limits = None if self._podman else SharedLimits(info)
                self._watcher = subprocess.Popen(
                    [sys.executable, "-m", f"{__package__}.docker_watch", self._label],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    start_new_session=True,
                )
                self._client = client
        return self._client

    async def _call(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        call = functools.partial(function, *arguments, **options)
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)
