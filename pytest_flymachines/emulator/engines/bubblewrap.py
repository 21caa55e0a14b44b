"""Machines in namespaces of this computer's kernel, with this computer's tools as their image."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from pytest_flymachines.emulator.engines import cgroups, egress, trial
from pytest_flymachines.emulator.engines.advice import advice
from pytest_flymachines.emulator.engines.base import (
    Door,
    EngineError,
    ExecOutcome,
    GuestMount,
    MachineConfigForEngine,
    Probe,
)
from pytest_flymachines.emulator.engines.bubblewrap_machine import BubblewrapMachine
from pytest_flymachines.emulator.engines.computer import (
    PATH,
    Computer,
    look_around,
    network_files,
    options_of,
    proxy_variables,
)
from pytest_flymachines.emulator.engines.pasta import pasta_field
from pytest_flymachines.emulator.engines.removal import remove_tree
from pytest_flymachines.emulator.engines.sixpn import Place, PrivateNetwork
from pytest_flymachines.emulator.engines.spawner import Spawner
from pytest_flymachines.emulator.engines.start_request import files_field, programs_field

__all__ = ["BubblewrapEngine"]

_OPEN_FILES = 10240  # As Fly's init sets it.


class BubblewrapEngine:
    """Machines by bubblewrap; see `docs/engines.md` for what they see and what limits them.

    Args:
        directory: For what all machines share; private to the user.
    """

    name = "bubblewrap"
    honours_image = False
    takes_devices = False
    sizes_root = True

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = asyncio.Lock()
        self._computer: Computer | None = None
        self._spawner: Spawner | None = None
        self._private_network: PrivateNetwork | None = None

    async def admit(self, doors: Sequence[Door]) -> None:
        """As in `Engine.admit`: at fdaa::3, as on Fly."""
        _, _, private_network = await self._prepared()
        await private_network.serve(doors)

    async def open(self, door: Door) -> Callable[[], None] | None:
        """As in `Engine.open`."""
        _, _, private_network = await self._prepared()
        return await private_network.open_door(door)

    async def peer(self, address: str) -> str:
        """As in `Engine.peer`: machines are seen as what they are."""
        return address

    async def probe(self) -> Probe:
        """As in `Engine.probe`."""
        try:
            try:
                outcome, no_disk = await trial.with_disk_or_without(self._try_one)
            except EngineError:
                if self._computer is None or self._computer.pasta is None:
                    raise
                # Installed, but something keeps it from working: machines can do without.
                self._computer = replace(self._computer, pasta=None)
                outcome, no_disk = await trial.with_disk_or_without(self._try_one)
        except (EngineError, OSError) as error:
            return Probe(works=False, why=f"{error}.{advice()}")
        if outcome.stdout.strip() != b"0":
            return Probe(works=False, why=f"`id -u` in a machine ended as {outcome}")
        self.takes_devices = not no_disk
        computer, _, private_network = await self._prepared()
        return Probe(works=True, notes=computer.notes(private_network) + trial.unlimited(no_disk))

    async def _try_one(self, disk: bool) -> ExecOutcome:
        async with trial.machine(self, disk=disk, below=self._made_directory()) as machine:
            return await machine.exec(["id", "-u"], timeout_s=trial.TIMEOUT_S)

    async def resolve_image(self, image: str) -> str:
        """A digest made of the name: this computer's tools are the image."""
        return "sha256:" + hashlib.sha256(image.encode()).hexdigest()

    async def image_config(self, image: str) -> bytes:
        """Nothing: there are no images."""
        raise EngineError(f"config of image {image}: the engine {self.name} has no images")

    async def start(self, machine: MachineConfigForEngine) -> BubblewrapMachine:
        """As in `Engine.start`."""
        computer, spawner, private_network = await self._prepared()
        for program in (machine, *machine.others) if computer.ids.single else ():
            if program.user not in {None, "", "root", "0"}:
                raise EngineError(
                    f"user {program.user!r}: an ordinary user's machine has root only, unless "
                    "newuidmap (Debian: package uidmap) is installed and /etc/subuid has a range"
                )
        outer = machine.beside if isinstance(machine.beside, BubblewrapMachine) else None
        groups = outer.groups if outer else computer.groups.of(machine.id)
        kinds = _own_directories(len(computer.tree.overlays))
        if machine.root_disk is None:
            await asyncio.to_thread(_make_directories, machine.directory, kinds)
        running = BubblewrapMachine(spawner, machine, groups)
        files = [*network_files(machine, computer, private_network), *machine.files]
        ids = computer.ids.inside() if outer else computer.ids
        pasta = computer.pasta if outer is None else None
        base = {"PATH": PATH, **proxy_variables(computer, machine)}
        listener, interface = await running.start(
            listen=egress.PORT if computer.proxied and outer is None else None,
            pasta=pasta_field(pasta, computer.policy) if pasta else None,
            bwrap=[str(computer.bwrap), *options_of(computer, machine)],
            ids=ids.fields(),
            network_of=outer.first_process if outer else None,
            address=machine.private_ip,
            root="/",
            root_directories=kinds if machine.root_disk else [],
            files=files_field(files),
            limits={
                "RLIMIT_NOFILE": _OPEN_FILES,
                "RLIMIT_NPROC": cgroups.pids_limit(machine.memory_mb),
            },
            programs=programs_field(machine, lambda env: {**base, **env}),
            env={**base, **machine.env},
        )
        if listener is not None:
            proxy = egress.Egress(computer.policy)
            await proxy.serve(listener)
            running.when_ended(proxy.close)
        if interface is not None:
            running.place = Place(
                private_network,
                address=machine.private_ip,
                name=machine.network,
                interface=interface,
            )
            running.when_ended(running.place.leave)
            await running.place.take()
        return running

    async def discard(self, directory: Path) -> None:
        """As in `Engine.discard`."""
        try:
            await asyncio.to_thread(remove_tree, directory)
        except PermissionError:
            # Left by one of the ids that newuidmap has given to the machine.
            await self._remove_as_root_inside(directory)
            await asyncio.to_thread(remove_tree, directory)

    async def close(self) -> None:
        """As in `Engine.close`."""
        if self._private_network is not None:
            self._private_network.close()
            self._private_network = None
        if self._spawner is not None:
            await self._spawner.close()
            self._spawner = None
        if self._computer is not None:
            for kept in self._computer.tree.kept:
                kept.close()
            self._computer = None
            await asyncio.to_thread(remove_tree, self._directory / "layers")

    async def _prepared(self) -> tuple[Computer, Spawner, PrivateNetwork]:
        async with self._lock:
            if self._computer is None:
                self._computer = await asyncio.to_thread(look_around, self._made_directory())
            if self._spawner is None or self._private_network is None:
                self._spawner = Spawner(self._computer.groups.parents)
                self._private_network = PrivateNetwork()
                await self._private_network.open(self._spawner)
            return self._computer, self._spawner, self._private_network

    async def _remove_as_root_inside(self, directory: Path) -> None:
        with tempfile.TemporaryDirectory(dir=self._made_directory(), prefix="rm-") as place:
            machine = await self.start(
                MachineConfigForEngine(
                    id="rm",
                    app="rm",
                    directory=Path(place),
                    image="",
                    hostname="rm",
                    log=Path(place, "log"),
                    argv=["find", "/mnt", "-mindepth", "1", "-delete"],
                    mounts=[GuestMount(directory, "/mnt")],
                )
            )
            status = await machine.wait()
            said = Path(place, "log").read_text(errors="replace")
        if status.exit_code:
            raise EngineError(f"cannot remove {directory}: {said.strip()}")

    def _made_directory(self) -> Path:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        return self._directory


def _own_directories(overlays: int) -> list[str]:
    """Where overlays keep what a machine writes, parents first."""
    numbers = [f"/{number}" for number in range(overlays)]
    return [f"{kind}{number}" for kind in ("upper", "work") for number in ("", *numbers)]


def _make_directories(directory: Path, names: list[str]) -> None:
    for name in names:
        (directory / name).mkdir(exist_ok=True)
