"""What the proxy sees of the emulator, and may do to it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Sequence
from typing import IO

from pytest_flymachines.emulator.answers import Problem
from pytest_flymachines.emulator.checks import service_check_name
from pytest_flymachines.emulator.emulator import Emulator
from pytest_flymachines.emulator.engines.base import EngineError
from pytest_flymachines.emulator.leases import held_lease
from pytest_flymachines.emulator.model import Machine
from pytest_flymachines.emulator.names import flycast_places, machine_at
from pytest_flymachines.emulator.proxy import (
    AppRecord,
    Caller,
    MachineRecord,
    Proxy,
    StartRefused,
    start_proxy,
)
from pytest_flymachines.emulator.wait import until

__all__ = ["ProxyDirectory", "serve_proxy"]

START_S = 60.0


class ProxyDirectory:
    """The proxy's `Directory` over the emulator's records and machines."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator

    def app(self, name: str) -> AppRecord | None:
        """The app of this name."""
        app = self._emulator.store.apps.get(name)
        if app is None:
            return None
        public = (item.ip for item in app.ips.values() if item.type != "private_v6")
        return AppRecord(
            name=name,
            org=app.org,
            network=app.network,
            address=next(public, ""),
            flycast=tuple(flycast_places(app)),
        )

    def machines(self, app: str) -> Iterable[MachineRecord]:
        """The machines of an app that are not destroyed; the proxy has to do with no others.

        It looks at them with every change, so those without services cost nothing.
        """
        return [
            _record(machine)
            for machine in self._emulator.store.machines_of(app)
            if machine.config.services and _there(machine)
        ]

    def machine(self, machine_id: str) -> MachineRecord | None:
        """One machine that is not destroyed."""
        machine = self._emulator.store.machines.get(machine_id)
        return _record(machine) if machine and _there(machine) else None

    def caller(self, address: str) -> Caller | None:
        """The machine with this 6PN address."""
        store = self._emulator.store
        machine = machine_at(store, address)
        app = store.apps.get(machine.app) if machine else None
        if machine is None or app is None:
            return None
        return Caller(machine=machine.id, app=app.name, org=app.org, region=machine.region)

    async def connect(self, machine_id: str, port: int) -> socket.socket:
        """A TCP socket into a machine.

        Raises:
            OSError: Nothing listens there, or the machine does not run.
        """
        life = self._emulator.flyd.life(machine_id)
        if life is None:
            raise ConnectionRefusedError(f"there is no machine {machine_id}")
        return await life.connect(port)

    async def open_file(self, machine_id: str, path: str) -> IO[bytes] | None:
        """A regular file of a machine that runs, to be read; None if there is none."""
        life = self._emulator.flyd.life(machine_id)
        if life is None or life.running is None:
            return None
        try:
            return await life.running.open_file(path)
        except EngineError:
            return None

    async def datagrams(self, machine_id: str, port: int) -> socket.socket:
        """A UDP socket into a machine.

        Raises:
            OSError: The machine does not run.
        """
        life = self._emulator.flyd.life(machine_id)
        if life is None:
            raise ConnectionRefusedError(f"there is no machine {machine_id}")
        return await life.datagrams(port)

    async def start(self, machine_id: str) -> None:
        """Start or resume a machine and wait until it is started.

        Raises:
            StartRefused: It could not be started.
        """
        life = self._emulator.flyd.life(machine_id)
        if life is None:
            raise StartRefused(f"machine {machine_id} not found")
        if life.machine.state not in ("starting", "restarting"):
            try:
                life.start(source="proxy")
            except Problem as problem:
                raise StartRefused(problem.text) from None
        reached = await until(life, ["started", "failed", "stopped", "destroyed"], "", "", START_S)
        if reached is None or reached.state != "started":
            raise StartRefused(f"machine is {life.machine.state}")

    def stop(self, machine_id: str) -> None:
        """Stop an idle machine."""
        if life := self._emulator.flyd.life(machine_id):
            life.stop(None, None, source="proxy")

    def suspend(self, machine_id: str) -> None:
        """Suspend an idle machine, or stop it where suspend is refused."""
        life = self._emulator.flyd.life(machine_id)
        if life is None:
            return
        try:
            life.suspend(source="proxy")
        except Problem:
            life.stop(None, None, source="proxy")

    def log(self, app: str, machine_id: str, text: str) -> None:
        """Take note of what the proxy could not do."""
        self._emulator.requests.say({"proxy": text, "app": app, "machine": machine_id})


async def serve_proxy(
    emulator: Emulator, host: str, port: int, *, names: Sequence[str] = ()
) -> Proxy:
    """Start the proxy in front of an emulator's machines, and autostop.

    Raises:
        OSError: The port is taken.
    """
    directory = ProxyDirectory(emulator)
    flyd = emulator.flyd
    proxy = await start_proxy(
        directory,
        host=host,
        port=port,
        names=names,
        edge=emulator.region,
        open_door=flyd.engine.open,
        sign=flyd.fly_src.headers,
    )
    emulator.flyd.watch(proxy.sync)
    for name in emulator.store.apps:
        proxy.sync(name)
    emulator.flyd.spawn(_autostop(emulator, directory, proxy), "autostop")
    return proxy


async def _autostop(emulator: Emulator, directory: ProxyDirectory, proxy: Proxy) -> None:
    """Stop or suspend machines whose services want that when they have no work."""
    timings = emulator.flyd.timings
    while True:
        await asyncio.sleep(timings.autostop_every_s)
        for name in list(emulator.store.apps):
            idle = proxy.idle_machines(name, idle_s=timings.autostop_idle_s)
            for machine_id, action in idle.items():
                if action == "suspend":
                    directory.suspend(machine_id)
                else:
                    directory.stop(machine_id)


def _there(machine: Machine) -> bool:
    return not machine.destroyed_ms and machine.host_status == "ok"


def _record(machine: Machine) -> MachineRecord:
    return MachineRecord(
        id=machine.id,
        app=machine.app,
        region=machine.region,
        state=machine.state,
        config=machine.config,
        cordoned=machine.cordoned,
        leased=held_lease(machine) is not None,
        failing=_failing(machine),
    )


def _failing(machine: Machine) -> frozenset[int]:
    """Internal ports of services that a check, or a readiness check of the machine, keeps out."""
    config = machine.config
    bad = {name for name, status in machine.checks.items() if status.status != "passing"}
    services = config.services or []
    readiness = {name for name, check in (config.checks or {}).items() if check.kind == "readiness"}
    if readiness & bad:
        return frozenset(service.internal_port for service in services)
    return frozenset(
        service.internal_port
        for service in services
        for index, check in enumerate(service.checks or ())
        if service_check_name(index, check, service.internal_port) in bad
    )
