"""What only a run's controller does: start the emulator, keep machines alive, take them down.

The controller is pytest itself, or xdist's controlling process.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_flymachines.api import Machine, MachinesClient
from pytest_flymachines.backend import direct_client
from pytest_flymachines.creation import RUN_KEY, delete_volume, volume_name
from pytest_flymachines.deadline import renew
from pytest_flymachines.errors import FlyMachinesError, NotFound
from pytest_flymachines.settings import Settings
from pytest_flymachines.sharing import EmulatorAddress, Launched, RunInfo, SharedState
from pytest_flymachines.sweep import GONE, destroy_verified

if TYPE_CHECKING:
    from pytest_flymachines.emulator.launch import EmulatorProcess

__all__ = ["Controller", "KeepAlive", "Outcome", "tear_down"]


class Controller:
    """The controller's part of a run on machines.

    Args:
        settings: What the user asked for; the mode is live or local.
        directory: For what the run's processes share; must not exist.
    """

    def __init__(self, settings: Settings, directory: Path) -> None:
        self._settings = settings
        self._state = SharedState(directory)
        self._emulator: EmulatorProcess | None = None
        self._keep_alive: KeepAlive | None = None
        address = None
        if settings.chosen == "local":
            self._emulator = _start_emulator(settings, directory / "emulator.log")
            address = EmulatorAddress(
                api_url=self._emulator.api_url,
                proxy_url=self._emulator.proxy_url,
                control_url=self._emulator.control_url,
                token=self._emulator.token,
            )
        self.info = RunInfo(
            run_id=settings.run_id or secrets.token_hex(8),
            directory=str(directory),
            emulator=address,
        )
        self._client = direct_client(settings, self.info)
        self._keep_alive = KeepAlive(self._client, self._state, settings.ttl)

    def describe(self) -> str:
        """For the header: the engine and what it does not do, or the app."""
        if self._emulator is None:
            return f"app {self._settings.app}, region {','.join(self._settings.region)}"
        return "; ".join([f"engine {self._emulator.engine}", *self._emulator.notes])

    def finish(self, *, failed: bool, progress: Callable[[str], None]) -> Outcome:
        """Take down what the run made; may be called twice."""
        if self._keep_alive is not None:
            self._keep_alive.close()
            self._keep_alive = None
        outcome = tear_down(
            self._client, self._settings, self.info, failed=failed, progress=progress
        )
        self._client.close()
        if self._emulator is not None:
            self._emulator.stop()
        return outcome


def _start_emulator(settings: Settings, log: Path) -> EmulatorProcess:
    """Start the emulator, which ends with this process, however that ends."""
    try:
        from pytest_flymachines.emulator.launch import launch
    except ImportError as error:
        raise pytest.UsageError(
            f"local mode needs the extra `local` ({error}): pip install pytest-flymachines[local]"
        ) from None
    try:
        return launch(engine=settings.engine, apps=(settings.app,), owner_pid=os.getpid(), log=log)
    except RuntimeError as error:
        raise pytest.UsageError(f"local mode cannot start its emulator: {error}") from None


@dataclass
class Outcome:
    """How the end of a run went.

    Attributes:
        destroyed: Machines that are verified gone.
        kept: Machines left behind as asked, with how to reach them.
        left: Machines or volumes that could not be removed, with the command that does.
    """

    destroyed: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


class KeepAlive:
    """Moves the deadline of every machine of the run, until closed.

    One thread in the controller serves all workers, so the number of requests does not grow
    with them: an exec and a metadata write for each machine, every third of the TTL.
    """

    def __init__(self, client: MachinesClient, state: SharedState, ttl_s: int) -> None:
        self._client = client
        self._state = state
        self._ttl_s = ttl_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="fly-keepalive", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop renewing; returns when no request is under way."""
        self._stop.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._stop.wait(self._ttl_s / 3):
            for launched in self._state.launched():
                if self._stop.is_set():
                    return
                # a machine that cannot be renewed ends by its deadline, which is what it is for
                with contextlib.suppress(FlyMachinesError):
                    renew(self._client, launched.app, launched.machine_id, self._ttl_s)


def tear_down(
    client: MachinesClient,
    settings: Settings,
    info: RunInfo,
    *,
    failed: bool,
    progress: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Destroy what the run made, found by metadata, and verify that it is gone.

    A run that created nothing makes no request.
    """
    state = SharedState(Path(info.directory))
    outcome = Outcome()
    apps = sorted({intent.app for intent in state.intents()})
    keep = settings.keep == "always" or (settings.keep == "failed" and failed)
    for app in apps:
        machines = _machines_of(client, app, info.run_id, state.launched(), outcome)
        if keep:
            outcome.kept += [_how_to_reach(app, machine, settings) for machine in machines]
            continue
        if machines:
            progress(f"destroying {len(machines)} machine(s) in {app}")
        with ThreadPoolExecutor(max_workers=8, thread_name_prefix="fly-teardown") as pool:
            errors = list(
                pool.map(lambda m, app=app: destroy_verified(client, app, m.id), machines)
            )
        for machine, error in zip(machines, errors, strict=True):
            if error is None:
                outcome.destroyed.append(machine.id)
            else:
                outcome.left.append(
                    f"machine {machine.id} ({error}): fly machine destroy --force "
                    f"{machine.id} -a {app}"
                )
        if settings.volume_gb or any(s.volume_id for s in state.launched()):
            _delete_volumes(client, app, info.run_id, outcome)
    if not outcome.left and not keep:
        shutil.rmtree(info.directory, ignore_errors=True)
    return outcome


def _machines_of(
    client: MachinesClient, app: str, run_id: str, launched: Sequence[Launched], outcome: Outcome
) -> list[Machine]:
    """By the list, and by id for those that a lagging list does not show yet."""
    try:
        found = {m.id: m for m in client.list_machines(app, metadata={RUN_KEY: run_id})}
        for one in launched:
            if one.app == app and one.machine_id not in found:
                with contextlib.suppress(NotFound):
                    found[one.machine_id] = client.get_machine(app, one.machine_id)
    except FlyMachinesError as error:
        outcome.left.append(
            f"app {app} could not be listed ({error}): pytest-flymachines reap --run {run_id} "
            f"--fly-app {app}"
        )
        return []
    return [m for m in found.values() if m.state not in GONE]


def _delete_volumes(client: MachinesClient, app: str, run_id: str, outcome: Outcome) -> None:
    try:
        for volume in client.list_volumes(app):
            if volume.name == volume_name(run_id) and "destroy" not in volume.state:
                delete_volume(client, app, volume.id)
    except FlyMachinesError as error:
        outcome.left.append(f"volumes named {volume_name(run_id)} in app {app}: {error}")


def _how_to_reach(app: str, machine: Machine, settings: Settings) -> str:
    until = time.strftime("%H:%M:%S", time.localtime(time.time() + settings.ttl))
    return (
        f"machine {machine.id} in app {app} until {until}: "
        f"pytest --fly-sandbox --fly-app={app} --fly-machine={machine.id}, "
        f"or fly machine exec {machine.id} -a {app} 'sh -c ...', "
        f"then fly machine destroy --force {machine.id} -a {app}"
    )
