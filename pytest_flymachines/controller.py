"""What only a run's controller does: start the emulator, keep machines alive, take them down.

The controller is pytest itself, or xdist's controlling process.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

# A test may fork while the thread that keeps machines alive is at work. For what that thread
# imports then, the child would wait forever; so these, which others load late, come first.
import filelock  # noqa: F401
import pytest

import pytest_flymachines._http.pool  # noqa: F401
from pytest_flymachines.api import Machine
from pytest_flymachines.backend import direct_client
from pytest_flymachines.keepalive import KeepAlive
from pytest_flymachines.progress import Progress
from pytest_flymachines.settings import Settings
from pytest_flymachines.sharing import EmulatorAddress, Intent, RunInfo, SharedState
from pytest_flymachines.teardown import Outcome, Teardown

if TYPE_CHECKING:
    from pytest_flymachines.emulator.launch import EmulatorProcess

# The first start of an ordinary user makes a cache, which takes long on a slow or busy disk.
START_S = 120.0

__all__ = ["Controller"]

# Together below the 10 s that CI systems leave between a signal and SIGKILL.
HURRY_S = 7.0
TEARDOWN_S = 90.0
# A teardown tries again by itself, and says what it could not do.
RETRY_S = 10.0


class Controller:
    """The controller's part of a run on machines.

    Args:
        settings: What the user asked for; the mode is live or local.
        directory: For what the run's processes share; must not exist.

    Attributes:
        info: What workers must know.
        remote_workers: Workers on other computers take part, whose notes are not seen here.
    """

    def __init__(self, settings: Settings, directory: Path) -> None:
        self._settings = settings
        self._directory = directory
        self._state = SharedState(directory)
        self._emulator: EmulatorProcess | None = None
        self._destroyed: list[str] = []
        self.remote_workers = False
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
            shard=secrets.token_hex(4) if settings.run_id else "",
        )
        self._keep_alive = KeepAlive(
            lambda: direct_client(settings, self.info, retry_s=RETRY_S),
            self._state,
            settings.ttl,
            run_id=self.info.run_id,
            user=self.info.shard,
            sweep_app=settings.app if settings.chosen == "live" else "",
            apps=self._apps_of_others,
        )

    @property
    def swept(self) -> list[str]:
        """Ids of what earlier runs had left and is gone now."""
        return self._keep_alive.swept

    def _apps_of_others(self) -> Sequence[str]:
        """Apps in which workers on other computers, whose notes are not here, launch."""
        return [self._settings.app] if self.remote_workers else ()

    def learn(self, noted: Iterable[Intent]) -> None:
        """Take over the notes of a worker on another computer, which has ended."""
        known = {intent.machine_id for intent in self._state.intents() if not intent.adopted}
        for intent in noted:
            # where several used one machine, the one that made it says when it began
            if intent.machine_id not in known:
                self._state.intend(intent)
                known |= set() if intent.adopted else {intent.machine_id}

    def describe(self) -> str:
        """For the header: the engine and what it does not do, or the app."""
        if self._emulator is None:
            return f"app {self._settings.app}, region {','.join(self._settings.region)}"
        return "; ".join([f"engine {self._emulator.engine}", *self._emulator.notes])

    def interrupt(self, progress: Progress) -> None:
        """Take machines down in a hurry, while workers may still run; `finish` comes after."""
        self._state.end()
        self._keep_alive.close()
        if self._settings.keep == "never":
            self._destroyed += self._tear_down(False, HURRY_S, progress).destroyed

    def finish(self, *, failed: bool, progress: Progress, hurry: bool = False) -> Outcome:
        """Take down what the run made, after its last worker has ended."""
        self._keep_alive.close()
        keep = self._settings.keep == "always" or (self._settings.keep == "failed" and failed)
        outcome = self._tear_down(keep, HURRY_S if hurry else TEARDOWN_S, progress)
        outcome.destroyed[:0] = self._destroyed
        if self._emulator is not None and not outcome.kept:
            self._emulator.stop()
        if not outcome.left and not outcome.kept:
            shutil.rmtree(self._directory, ignore_errors=True)
        return outcome

    def _tear_down(self, keep: bool, within_s: float, progress: Progress) -> Outcome:
        with direct_client(self._settings, self.info, retry_s=RETRY_S) as client:
            teardown = Teardown(
                client,
                self._settings,
                self.info.run_id,
                self._state,
                user=self.info.shard,
                apps=self._apps_of_others(),
            )
            outcome = teardown.run(
                keep=keep, within_s=within_s, reach=self._how_to_reach, progress=progress
            )
        if outcome.kept and self._emulator is not None:
            self._emulator.disown()
        return outcome

    def _how_to_reach(self, machine: Machine, left_s: float) -> str:
        app = self._settings.app
        until = time.strftime("%H:%M:%S", time.localtime(time.time() + left_s))
        if self._emulator is not None:
            environment = self._environment(self._emulator)
            return (
                f"machine {machine.id} until {until}, with the emulator (process "
                f"{self._emulator.pid}): `set -a; . {environment}`, then "
                f"`pytest --fly-mode=live --fly-machine={machine.id}`"
            )
        return (
            f"machine {machine.id} in app {app} until {until}: "
            f"pytest --fly-sandbox --fly-app={app} --fly-machine={machine.id}, "
            f"or fly machine exec {machine.id} -a {app} 'sh -c ...', "
            f"then fly machine destroy --force {machine.id} -a {app}"
        )

    def _environment(self, emulator: EmulatorProcess) -> Path:
        """A file for this user alone that leads every client to the emulator."""
        path = self._directory / "emulator.env"
        lines = {
            "FLY_API_TOKEN": emulator.token,
            "FLY_FLAPS_BASE_URL": emulator.api_url,
            "FLY_EMULATOR_PROXY_URL": emulator.proxy_url,
            "FLY_APP": self._settings.app,
        }
        path.touch(mode=0o600)
        path.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        return path


def _start_emulator(settings: Settings, log: Path) -> EmulatorProcess:
    """Start the emulator, which ends with this process, however that ends."""
    from pytest_flymachines.emulator.extra import missing
    from pytest_flymachines.emulator.launch import launch

    if why := missing():
        raise pytest.UsageError(f"local mode cannot start its emulator: {why}")
    try:
        return launch(
            engine=settings.engine,
            apps=(settings.app,),
            owner_pid=os.getpid(),
            log=log,
            timeout_s=START_S,
        )
    except RuntimeError as error:
        raise pytest.UsageError(f"local mode cannot start its emulator: {error}") from None
