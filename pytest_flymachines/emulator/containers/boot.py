"""From a machine's record to its containers, started."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from pytest_flymachines.emulator import config
from pytest_flymachines.emulator.boot import environment, files_for
from pytest_flymachines.emulator.config import Process
from pytest_flymachines.emulator.containers.container import Container, Surroundings
from pytest_flymachines.emulator.containers.pod import Pod
from pytest_flymachines.emulator.engines.base import (
    Engine,
    GuestMount,
    MachineConfigForEngine,
    RunningMachine,
)
from pytest_flymachines.emulator.model import App, Machine
from pytest_flymachines.emulator.proxy.fly_src import PUBLIC_KEY

__all__ = ["boot_containers", "directories_of"]

_CONTAINERS = "containers"


async def boot_containers(
    engine: Engine,
    machine: Machine,
    app: App,
    around: MachineConfigForEngine,
    changed: Callable[[Machine], None],
    log: Callable[[str], None],
    backoff_s: tuple[float, float],
    image_configs: Mapping[str, bytes],
    temp_dirs: Mapping[str, GuestMount],
) -> Pod:
    """Start the machine around them and those that wait for no other.

    Args:
        engine: Runs all of it.
        machine: The record; gets the containers' states.
        app: Its app, for the secrets.
        around: The machine without its containers.
        changed: Called when a state has changed.
        log: Called with what is worth knowing.
        backoff_s: Second pause before a restart by policy, and the longest.
        image_configs: By image, for the files that are such.
        temp_dirs: By name; see `TempDirs`.

    Raises:
        EngineError: The machine could not be started, or a file's secret is missing.
    """
    configs = [
        (given, _config(machine, app, around, given, image_configs, temp_dirs))
        for given in machine.config.containers or ()
    ]
    outer = await engine.start(around)
    # Those of the run before may still have something to tell.
    states = machine.containers = {}
    containers = []
    for given, wanted in configs:

        def tell(state: str, name: str = given.name) -> None:
            states[name] = state
            changed(machine)

        async def start(inner: MachineConfigForEngine = wanted) -> RunningMachine:
            return await engine.start(replace(inner, beside=outer))

        containers.append(Container(given, Surroundings(start, tell, log, *backoff_s)))
    pod = Pod(outer, containers)
    await pod.up()
    return pod


def directories_of(directory: Path) -> list[Path]:
    """Those of the containers of the machine whose directory this is, for `Engine.discard`."""
    parent = directory / _CONTAINERS
    return list(parent.iterdir()) if parent.is_dir() else []


def _config(
    machine: Machine,
    app: App,
    around: MachineConfigForEngine,
    given: config.Container,
    image_configs: Mapping[str, bytes],
    temp_dirs: Mapping[str, GuestMount],
) -> MachineConfigForEngine:
    directory = around.directory / _CONTAINERS / given.name
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Secrets that are named are the only ones, by the OpenAPI document.
    process = Process(
        env=given.env,
        env_from=given.env_from,
        secrets=given.secrets,
        ignore_app_secrets=bool(given.secrets),
    )
    return MachineConfigForEngine(
        id=f"{around.id}-{given.name}",
        app=around.app,
        directory=directory,
        image=given.image,
        argv=given.exec or None,
        entrypoint=given.entrypoint,
        cmd=given.cmd,
        env=environment(machine, app, process),
        user=given.user or None,
        hostname=around.hostname,
        cpus=around.cpus,
        memory_mb=around.memory_mb,
        swap_mb=around.swap_mb,
        private_ip=around.private_ip,
        nameservers=around.nameservers,
        searches=around.searches,
        resolver_options=around.resolver_options,
        files=[
            *(f for f in around.files if f.path == PUBLIC_KEY),
            *files_for(given.files, app, image_configs),
        ],
        mounts=[*around.mounts, *_mounts(machine, around, given, temp_dirs)],
        network=around.network,
        log=around.log,
    )


def _mounts(
    machine: Machine,
    around: MachineConfigForEngine,
    given: config.Container,
    temp_dirs: Mapping[str, GuestMount],
) -> list[GuestMount]:
    """A container's own mounts: each by its name is a volume of the machine, or a directory."""
    volumes = {
        wanted.name: mounted
        for wanted, mounted in zip(machine.config.mounts or (), around.mounts, strict=False)
    }
    shared = {**temp_dirs, **volumes}
    return [replace(shared[mount.name], path=mount.path) for mount in given.mounts or ()]
