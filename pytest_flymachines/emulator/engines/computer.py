"""This computer, as the machines of the bubblewrap engine have it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from pytest_flymachines.emulator.engines import cgroups, egress
from pytest_flymachines.emulator.engines.base import (
    GATEWAY,
    EngineError,
    GuestFile,
    MachineConfigForEngine,
)
from pytest_flymachines.emulator.engines.bubblewrap_machine import GLOBAL_SERVICES
from pytest_flymachines.emulator.engines.bwrap import IdMaps, bwrap_options, find_bwrap, id_maps
from pytest_flymachines.emulator.engines.host_python import HostPython, find_python
from pytest_flymachines.emulator.engines.layers import SystemTree, survey
from pytest_flymachines.emulator.engines.pasta import NAMESERVER, find_pasta
from pytest_flymachines.emulator.engines.removal import remove_tree
from pytest_flymachines.emulator.engines.sixpn import PrivateNetwork

__all__ = ["PATH", "Computer", "look_around", "network_files", "options_of", "proxy_variables"]

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Of machines."""


@dataclass(frozen=True)
class Computer:
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

    def notes(self, private_network: PrivateNetwork) -> tuple[str, ...]:
        """What a user should know of machines here."""
        notes = ["this computer's tools are the image of every machine"]
        if not self.groups.limits:
            notes.append(cgroups.NO_LIMITS)
        if self.proxied:
            notes.append("machines reach the outside through an HTTP proxy only (no pasta)")
        if private_network.why_not:
            notes.append(
                f"machines reach neither each other nor .internal names ({private_network.why_not})"
            )
        if self.groups.unified is None:
            notes.append("no cgroup freezer: suspend stops processes by signals")
        if self.ids.single:
            notes.append("machines have root as their only user (no newuidmap)")
        if shutil.which("git", path=PATH) is None:
            notes.append("this computer has no git in a system directory, so machines have none")
        return tuple(notes)


def look_around(directory: Path) -> Computer:
    """Find out about this computer, and remove what killed emulators have left on it.

    Args:
        directory: For what all machines share.

    Raises:
        EngineError: There is no bubblewrap, or the environment is wrong.
    """
    bwrap = find_bwrap()
    try:
        policy = egress.Policy.from_environment()
    except ValueError as error:
        raise EngineError(str(error)) from error
    cgroups.sweep()
    layers = directory / "layers"
    remove_tree(layers)
    return Computer(
        bwrap=bwrap,
        ids=id_maps(),
        tree=survey(layers),
        groups=cgroups.find(),
        python=find_python(PATH),
        policy=policy,
        pasta=find_pasta(policy),
    )


def proxy_variables(computer: Computer, machine: MachineConfigForEngine) -> dict[str, str]:
    """Where the programs of a machine find the way out, if that is a proxy."""
    return egress.proxy_variables(machine.private_ip) if computer.proxied else {}


def network_files(
    machine: MachineConfigForEngine, computer: Computer, private_network: PrivateNetwork
) -> list[GuestFile]:
    """What a machine is called, and whom it asks for names."""
    own = f"{machine.id}.vm.{machine.app}.internal"
    hosts = (
        "127.0.0.1\tlocalhost\n"
        "::1\tlocalhost ip6-localhost ip6-loopback\n"
        f"{GLOBAL_SERVICES}\tfly-global-services\n"
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


def options_of(computer: Computer, machine: MachineConfigForEngine) -> list[str]:
    """The options of bubblewrap for a machine."""
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
