"""Machines as containers of a Docker or podman daemon, from the images that configs name."""

from __future__ import annotations

import asyncio
import functools
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from ipaddress import IPv6Network
from pathlib import Path
from typing import Any

from docker.errors import APIError, DockerException, NotFound
from docker.errors import ImageNotFound as DockerImageNotFound
from docker.types import IPAMConfig, IPAMPool

from pytest_flymachines.emulator.engines import trial
from pytest_flymachines.emulator.engines.base import (
    Door,
    EngineError,
    ImageNotFound,
    ImageNotPulled,
    MachineConfigForEngine,
    Probe,
)
from pytest_flymachines.emulator.engines.cgroups import pids_limit
from pytest_flymachines.emulator.engines.docker_client import (
    OWNER,
    archive,
    connect,
    import_probe_image,
    on_bridge,
    owner_label,
    remove_all,
    sweep,
)
from pytest_flymachines.emulator.engines.docker_disks import binds
from pytest_flymachines.emulator.engines.docker_groups import SharedLimits
from pytest_flymachines.emulator.engines.docker_machine import DockerMachine, unexecutable
from pytest_flymachines.emulator.engines.docker_probe import WAIT, try_one
from pytest_flymachines.emulator.engines.docker_words import (
    aliases,
    command,
    oci_config,
    split_image,
)
from pytest_flymachines.emulator.engines.removal import remove_tree

__all__ = ["DockerEngine"]

_THREADS = 64
_REFUSAL = re.compile("unauthorized|no basic auth credentials|denied|authentication required")
_PODMAN_NOTES = (
    "podman does not keep networks apart: machines reach those of other 6PN networks",
    "with podman an exec needs /bin/sh, and its output ends with its program",
    "with podman a main program that is missing exits with 1",
)
_MARK = "container"
"""File in a machine's directory with the id of the container that has its root file system."""


@dataclass(frozen=True)
class _Network:
    """A network of the daemon.

    Attributes:
        id: The daemon's.
        has_6pn: Machines have their `private_ip` in it.
        gateway: This computer's address in it, if the doors are there.
    """

    id: str
    has_6pn: bool
    gateway: str = ""

    @property
    def hosts(self) -> dict[str, str]:
        """Lines for /etc/hosts."""
        return {"_api.internal": self.gateway} if self.gateway else {}


class DockerEngine:
    """Containers; see `docs/engines.md`.

    Args:
        directory: For what all machines share; private to the user.
    """

    name = "docker"
    honours_image = True
    takes_devices = False

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
        self._networks: dict[str, _Network] = {}
        self._doors: Sequence[Door] = ()
        self._closers: list[Callable[[], None]] = []

    async def admit(self, doors: Sequence[Door]) -> None:
        """As in `Engine.admit`, at each network's gateway; the daemon is itself the name server."""
        self._doors = [door for door in doors if door.kind == "tcp" and door.port >= 1024]

    async def open(self, door: Door) -> None:
        """As in `Engine.open`: nothing of the kind."""

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
            raise EngineError(f"image {image}: {error}") from error
        repository = split_image(image)[0]
        named = [name.partition("@") for name in found.get("RepoDigests") or ()]
        # The same image may have another digest in another registry.
        named.sort(key=lambda parts: parts[0] != repository)
        digest: str = named[0][2] if named else found["Id"]
        return digest

    async def image_config(self, image: str) -> bytes:
        """As in `Engine.image_config`, without the history."""
        try:
            return oci_config(await self._image(image))
        except (DockerException, OSError) as error:
            raise EngineError(f"image {image}: {error}") from error

    async def start(self, machine: MachineConfigForEngine) -> DockerMachine:
        """As in `Engine.start`."""
        try:
            return await self._start(machine)
        except (DockerException, OSError) as error:
            raise EngineError(f"container for {machine.id}: {error}") from error

    async def discard(self, directory: Path) -> None:
        """As in `Engine.discard`."""
        await self._remove_container(directory)
        if self._shared_limits is not None:
            await self._call(self._shared_limits.remove, directory)
        await asyncio.to_thread(remove_tree, directory)

    async def close(self) -> None:
        """As in `Engine.close`."""
        for close in self._closers:
            close()
        self._closers.clear()
        if self._client is not None:
            await self._call(remove_all, self._client, self._label)
            if self._shared_limits is not None:
                await self._call(self._shared_limits.close)
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
        )
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
        network = await self._network(machine)
        address = machine.private_ip if network.has_6pn else None
        # The daemon chooses the IPv4 address only when the container starts.
        own = {"fly-global-services": "0.0.0.0"}
        if network.has_6pn:
            own["fly-local-6pn"] = machine.private_ip
        endpoint = api.create_endpoint_config(ipv6_address=address, aliases=aliases(machine))
        return {
            "hostname": machine.hostname,
            "networking_config": api.create_networking_config({network.id: endpoint}),
            "host_config": host_config(
                extra_hosts=own | network.hosts,
                dns=list(machine.nameservers) or None,
                dns_search=list(machine.searches) or None,
                dns_opt=list(machine.resolver_options) or None,
            ),
        }

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

    async def _network(self, machine: MachineConfigForEngine) -> _Network:
        """The network of the app's 6PN: its machines reach each other at their `private_ip`."""
        # Not /48, as on Fly: Docker 20 counts addresses in 64 bits and would give another.
        prefix = str(IPv6Network(f"{machine.private_ip}/64", strict=False))
        async with self._lock:
            if prefix not in self._networks:
                self._networks[prefix] = await self._make_network(prefix)
        return self._networks[prefix]

    async def _make_network(self, prefix: str) -> _Network:
        name = f"pytest-flymachines-{self._label}-{len(self._networks)}"
        create = functools.partial(
            self._call,
            self._client.create_network,
            name,
            labels={OWNER: self._label},
        )
        pools = IPAMConfig(pool_configs=[IPAMPool(subnet=prefix)])
        try:
            made = await create(enable_ipv6=True, ipam=pools)
        except APIError as error:
            if not re.search("overlaps|already used", str(error)):
                raise
            # Another emulator on this daemon has the same organization and network.
            network = (await create())["Id"]
            return _Network(network, has_6pn=False, gateway=await self._open_doors(network))
        return _Network(made["Id"], has_6pn=True, gateway=await self._open_doors(made["Id"]))

    async def _open_doors(self, network: str) -> str:
        """Serve at this computer's address in a network; empty if that cannot be had."""
        found = await self._call(self._client.inspect_network, network)
        pools = found["IPAM"]["Config"] or ()
        gateway = next((p["Gateway"] for p in pools if "." in p.get("Gateway", "")), "")
        for door in self._doors if gateway else ():
            try:
                listener = on_bridge(network, gateway, door.port)
            except OSError:  # The daemon is not on this computer, or the port is taken.
                return ""
            self._closers.append(door.serve(listener))
        return gateway if self._doors else ""

    async def _hollow(self) -> str:
        """The image of machines that only wait, made when the first is needed."""
        async with self._lock:
            if not self._hollow_image:
                make = functools.partial(import_probe_image, self._client, self._label)
                self._hollow_image = await self._call(make)
        return self._hollow_image

    async def _image(self, image: str) -> Any:
        """What the daemon knows of an image, pulled if it has none of that name."""
        api = await self._api()
        try:
            return await self._call(api.inspect_image, image)
        except DockerImageNotFound:
            repository, tag = split_image(image)
        try:
            await self._call(api.pull, repository, tag=tag)
        except NotFound:
            raise
        except APIError as error:
            why = f"image {image}: {error.explanation}"
            if _REFUSAL.search(error.explanation or ""):
                host = repository.partition("/")[0]
                why += (
                    f"; `docker login {host}` as the user that runs the emulator, or a credential "
                    "helper in its config.json, lets it pull"
                )
            raise ImageNotPulled(why) from error
        return await self._call(api.inspect_image, image)

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
            except APIError as error:
                raise EngineError(f"container of {directory}: {error}") from error
            mark.unlink()

    async def _api(self) -> Any:
        async with self._lock:
            if self._client is None:
                client = await self._call(connect)
                await self._call(sweep, client)
                info = await self._call(client.info)
                self._cpus = info["NCPU"]
                self._shared_limits = SharedLimits(info)
                version = await self._call(client.version)
                self._podman = "podman" in str(version.get("Components")).lower()
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
