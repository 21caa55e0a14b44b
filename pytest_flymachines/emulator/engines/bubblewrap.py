"""Machines in namespaces of this computer's kernel, with this computer's tools as their image."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import socket
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pytest_flymachines.emulator.engines import cgroups, egress, trial
from pytest_flymachines.emulator.engines.advice import advice
from pytest_flymachines.emulator.engines.base import (
    GATEWAY,
    Door,
    EngineError,
    ExecOutcome,
    GuestFile,
    GuestMount,
    MachineConfigForEngine,
    Probe,
)
from pytest_flymachines.emulator.engines.bwrap import IdMaps, bwrap_options, find_bwrap, id_maps
from pytest_flymachines.emulator.engines.host_python import HostPython, find_python
from pytest_flymachines.emulator.engines.layers import SystemTree, survey
from pytest_flymachines.emulator.engines.pasta import NAMESERVER, find_pasta, pasta_field
from pytest_flymachines.emulator.engines.removal import remove_tree
from pytest_flymachines.emulator.engines.sixpn import Place, PrivateNetwork
from pytest_flymachines.emulator.engines.spawner import Spawner
from pytest_flymachines.emulator.engines.supervised import (
    SupervisedMachine,
    files_field,
    programs_field,
)

__all__ = ["BubblewrapEngine", "BubblewrapMachine"]

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Of the machine's own loopback, which answers at 127.0.0.1 unless bound to another address.
_GLOBAL_SERVICES, _UDP_VISITORS = "127.19.0.3", "127.19.0.2"
_IDLE = ("sleep", "infinity")
_OPEN_FILES = 10240  # As Fly's init sets it.


@dataclass(frozen=True)
class _Computer:
    """What was found out about this computer, once."""

    bwrap: Path
    ids: IdMaps
    tree: SystemTree
    groups: cgroups.Groups
    python: HostPython
    policy: egress.Policy
    pasta: str | None

    @property
    def proxied(self) -> bool:
        """Whether machines get out through a proxy."""
        return self.policy.enabled and self.pasta is None


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
        self._computer: _Computer | None = None
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
        return Probe(works=True, notes=self._notes() + trial.unlimited(no_disk))

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
        files = [*_network_files(machine, computer, private_network), *machine.files]
        ids = computer.ids.inside() if outer else computer.ids
        pasta = computer.pasta if outer is None else None
        base = {"PATH": _PATH, **_proxy_variables(computer, machine)}
        listener, interface = await running.start(
            listen=egress.PORT if computer.proxied and outer is None else None,
            pasta=pasta_field(pasta, computer.policy) if pasta else None,
            bwrap=[str(computer.bwrap), *_options(computer, machine)],
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

    async def _prepared(self) -> tuple[_Computer, Spawner, PrivateNetwork]:
        async with self._lock:
            if self._computer is None:
                self._computer = await asyncio.to_thread(self._look_around)
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

    def _look_around(self) -> _Computer:
        bwrap = find_bwrap()
        try:
            policy = egress.Policy.from_environment()
        except ValueError as error:
            raise EngineError(str(error)) from error
        cgroups.sweep()
        remove_tree(self._directory / "layers")
        return _Computer(
            bwrap=bwrap,
            ids=id_maps(),
            tree=survey(self._made_directory() / "layers"),
            groups=cgroups.find(),
            python=find_python(_PATH),
            policy=policy,
            pasta=find_pasta(policy),
        )

    def _made_directory(self) -> Path:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        return self._directory

    def _notes(self) -> tuple[str, ...]:
        assert self._computer is not None
        notes = ["this computer's tools are the image of every machine"]
        if not self._computer.groups.limits:
            notes.append(cgroups.NO_LIMITS)
        if self._computer.proxied:
            notes.append("machines reach the outside through an HTTP proxy only (no pasta)")
        if self._private_network is not None and self._private_network.why_not:
            notes.append(
                "machines reach neither each other nor .internal names "
                f"({self._private_network.why_not})"
            )
        if self._computer.groups.unified is None:
            notes.append("no cgroup freezer: suspend stops processes by signals")
        if self._computer.ids.single:
            notes.append("machines have root as their only user (no newuidmap)")
        if shutil.which("git", path=_PATH) is None:
            notes.append("this computer has no git in a system directory, so machines have none")
        return tuple(notes)


class BubblewrapMachine(SupervisedMachine):
    """A machine of the bubblewrap engine.

    Attributes:
        place: In the private network, if it has one.
    """

    place: Place | None = None

    async def suspend(self) -> None:
        """As in `RunningMachine.suspend`; its kernel would still take connections for it."""
        await super().suspend()
        if self.place is not None:
            self.place.give_up()

    async def resume(self) -> None:
        """As in `RunningMachine.resume`."""
        await super().resume()
        if self.place is not None:
            await self.place.take()

    @property
    def first_process(self) -> int:
        """One that is in all of its namespaces: its pid on this computer."""
        return self._walls[1]

    @property
    def root(self) -> Path:
        """As its first process has it."""
        return Path(f"/proc/{self.first_process}/root")

    def place_of(self, mount: GuestMount) -> Path:
        """Where its first process has it; the machine decides what is at that path."""
        return self.root / mount.path.lstrip("/")

    async def connect(self, port: int) -> socket.socket:
        """As in `RunningMachine.connect`."""
        return await self.connect_to(["127.0.0.1", self.config.private_ip, "::1"], port)

    async def datagrams(self, port: int) -> socket.socket:
        """As in `RunningMachine.datagrams`.

        What answers from another address, as a program bound to 0.0.0.0 does, is not heard.
        """
        return await self.datagrams_to(_GLOBAL_SERVICES, port, source=_UDP_VISITORS)


def _proxy_variables(computer: _Computer, machine: MachineConfigForEngine) -> dict[str, str]:
    return egress.proxy_variables(machine.private_ip) if computer.proxied else {}


def _network_files(
    machine: MachineConfigForEngine, computer: _Computer, private_network: PrivateNetwork
) -> list[GuestFile]:
    own = f"{machine.id}.vm.{machine.app}.internal"
    hosts = (
        "127.0.0.1\tlocalhost\n"
        "::1\tlocalhost ip6-localhost ip6-loopback\n"
        f"{_GLOBAL_SERVICES}\tfly-global-services\n"
        f"{machine.private_ip}\tfly-local-6pn {own} {machine.hostname}\n"
    )
    nameservers = machine.nameservers
    if not nameservers and private_network.resolves:
        nameservers = [GATEWAY]
    elif not nameservers and computer.pasta:
        nameservers = [NAMESERVER]
    resolv = "".join(f"nameserver {address}\n" for address in nameservers)
    for keyword, values in (("search", machine.searches), ("options", machine.resolver_options)):
        if values:
            resolv += f"{keyword} {' '.join(values)}\n"
    return [
        GuestFile("/etc/hosts", hosts.encode()),
        GuestFile("/etc/hostname", f"{machine.hostname}\n".encode()),
        GuestFile("/etc/resolv.conf", resolv.encode()),
    ]


def _options(computer: _Computer, machine: MachineConfigForEngine) -> list[str]:
    binds: list[tuple[str, Path, str]] = [
        ("--bind", mount.source, mount.path) for mount in machine.mounts
    ]
    if computer.python.prefix:
        binds.insert(0, ("--ro-bind", computer.python.prefix, str(computer.python.prefix)))
    links = {}
    if computer.python.executable:
        links["/usr/local/bin/python3"] = str(computer.python.executable)
    return bwrap_options(
        machine.root_disk.source if machine.root_disk else machine.directory,
        machine.hostname,
        computer.tree,
        binds,
        links,
        own_network=machine.beside is None,
    )


def _own_directories(overlays: int) -> list[str]:
    """Where overlays keep what a machine writes, parents first."""
    numbers = [f"/{number}" for number in range(overlays)]
    return [f"{kind}{number}" for kind in ("upper", "work") for number in ("", *numbers)]


def _make_directories(directory: Path, names: list[str]) -> None:
    for name in names:
        (directory / name).mkdir(exist_ok=True)
