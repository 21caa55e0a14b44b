"""The host: every machine's life, the engine that runs them, and where their files lie."""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from pytest_flymachines.emulator.boot import for_engine
from pytest_flymachines.emulator.checks import Checks
from pytest_flymachines.emulator.config import decode_hook, encode
from pytest_flymachines.emulator.containers.boot import boot_containers, directories_of
from pytest_flymachines.emulator.containers.temp_dirs import TempDirs
from pytest_flymachines.emulator.engines.base import (
    Engine,
    EngineError,
    GuestFile,
    GuestMount,
    RunningMachine,
)
from pytest_flymachines.emulator.faults import Faults
from pytest_flymachines.emulator.hosts import Hosts
from pytest_flymachines.emulator.images import file_images
from pytest_flymachines.emulator.lifecycle import Life
from pytest_flymachines.emulator.metrics import Metrics
from pytest_flymachines.emulator.model import Machine, Volume, share_files
from pytest_flymachines.emulator.proxy.fly_src import PUBLIC_KEY, FlySrc
from pytest_flymachines.emulator.proxy.inside import Inside
from pytest_flymachines.emulator.root_disks import RootDisks
from pytest_flymachines.emulator.schedule import Schedules
from pytest_flymachines.emulator.store import Store
from pytest_flymachines.emulator.volume_files import VolumeFiles
from pytest_flymachines.emulator.wiretime import now_ms
from pytest_flymachines.emulator.work import Work

__all__ = ["Flyd", "Timings"]

MAX_DESTROYED = 500


@dataclass(frozen=True, kw_only=True)
class Timings:
    """How long things take that take their time on Fly; all in seconds.

    Attributes:
        stop_timeout_s: From the stop signal to SIGKILL when nothing else is asked for.
        destroyed_readable_s: How long GET still shows a destroyed machine.
        volume_bond_s: How long a volume stays bound to a machine that was destroyed.
        restart_backoff_s: Second pause before a policy restart; it doubles from there.
        restart_backoff_max_s: The longest such pause.
        list_delay_s: How old the answers of lists are.
        hour_s: Length of the hour that `schedule` counts in.
        autostop_every_s: How often the proxy looks for machines without work.
        autostop_idle_s: How long a machine without work is left alone.
        scrape_every_s: How often the metrics of a machine are scraped.
    """

    stop_timeout_s: float = 5.0
    destroyed_readable_s: float = 10.0
    volume_bond_s: float = 1.0
    restart_backoff_s: float = 0.1
    restart_backoff_max_s: float = 2.0
    list_delay_s: float = 0.0
    hour_s: float = 3600.0
    autostop_every_s: float = 60.0
    autostop_idle_s: float = 60.0
    scrape_every_s: float = 15.0


class Flyd:
    """All machines of one emulator."""

    def __init__(
        self,
        store: Store,
        engine: Engine,
        directory: Path,
        *,
        timings: Timings,
        faults: Faults,
        log: Callable[[dict[str, Any]], None],
    ) -> None:
        self.store = store
        self.engine = engine
        self.timings = timings
        self.faults = faults
        self.metrics = Metrics(self)
        self._checks = Checks(self)
        self.schedules = Schedules(self)
        self.hosts = Hosts(self)
        volumes = directory / "volumes"
        self.volumes = VolumeFiles(volumes, engine)
        self.roots = RootDisks(engine)
        self._temp_dirs = TempDirs(engine)
        self._machines = directory / "machines"
        self._logs = directory / "logs"
        for path in (volumes, self._machines, self._logs):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._log = log
        self.inside: Inside | None = None
        self.fly_src = FlySrc()
        self._watchers: list[Callable[[str], None]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._listed: dict[str, Machine] = {}
        self.lives = {machine.id: Life(machine, self) for machine in store.machines.values()}

    def recover(self) -> None:
        """Bring the records of an emulator that ended into a state at rest."""
        for machine in self.store.machines.values():
            self._publish(encode(machine))
        for life in list(self.lives.values()):
            if life.machine.app in self.store.apps:
                life.recover()
                self.schedules.arm(life)
            else:
                self.forget(life.machine)
                self.spawn(self.discard(life.machine), f"discard {life.machine.id}")
        for volume in list(self.store.volumes.values()):
            if volume.app not in self.store.apps:
                self.store.drop(volume)
                self.spawn(self.remove_volume(volume), f"remove {volume.id}")

    def adopt(self, machine: Machine) -> Life:
        """Take in a machine that was just created."""
        life = self.lives[machine.id] = Life(machine, self)
        self.schedules.arm(life)
        return life

    def life(self, machine_id: str) -> Life | None:
        """A machine that can be read: alive, or destroyed a short while ago."""
        life = self.lives.get(machine_id)
        if life is None or not life.machine.destroyed_ms:
            return life
        age_s = (now_ms() - life.machine.destroyed_ms) / 1000
        return life if age_s < self.timings.destroyed_readable_s else None

    def attend(self, life: Work) -> None:
        """Begin to check and to scrape a machine that has started."""
        self._checks.start(life)
        self.metrics.start(life)

    def leave(self, life: Work) -> None:
        """End what `attend` began."""
        self._checks.stop(life)
        self.metrics.stop(life)

    def watch(self, watcher: Callable[[str], None]) -> None:
        """Have somebody told the app of every machine that changes."""
        self._watchers.append(watcher)

    def announce(self, app: str) -> None:
        """Tell the watchers that something of this app has changed."""
        for watcher in self._watchers:
            watcher(app)

    def changed(self, machine: Machine) -> None:
        """Keep what has changed; what a request changed is written before its answer."""
        self.store.put(machine)
        asyncio.get_running_loop().call_soon(self.store.flush)
        self.announce(machine.app)

        delay_s = self.timings.list_delay_s
        if delay_s:
            asyncio.get_running_loop().call_later(delay_s, self._publish, encode(machine))

    def _publish(self, record: bytes) -> None:
        machine = msgspec.json.decode(record, type=Machine, dec_hook=decode_hook)
        self._listed[machine.id] = machine

    def listed(self, app: str) -> list[Machine]:
        """The machines of an app as lists show them, oldest first."""
        if not self.timings.list_delay_s:
            machines = self.store.machines_of(app)
        else:
            machines = (machine for machine in self._listed.values() if machine.app == app)
        return sorted(machines, key=lambda machine: machine.created_ms)

    def log_file(self, machine: Machine) -> Path:
        """What the main process of this machine wrote."""
        return self._logs / f"{machine.id}.log"

    def log(self, machine: Machine, text: str) -> None:
        """Say something about a machine in the emulator's log."""
        self._log({"machine": machine.id, "app": machine.app, "text": text})

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run in the background; a failure goes to the log and stderr, and ends nothing else."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            print(f"{task.get_name()}:", file=sys.stderr)  # noqa: T201 - the process's own log
            traceback.print_exception(error)
            self._log({"failure": task.get_name(), "text": repr(error)})

    async def boot(self, machine: Machine, *, keep_root: bool) -> RunningMachine:
        """Start a machine's main process.

        Raises:
            EngineError: It could not be started.
        """
        directory = self._machines / machine.id
        if not keep_root:
            self.roots.drop(machine.id)
            await self._clear(directory)
        directory.mkdir(mode=0o700, exist_ok=True)
        app = self.store.apps.get(machine.app)
        if app is None:
            raise EngineError(f"app {machine.app} is gone")
        mounts = [
            await asyncio.to_thread(self.volumes.mount, mount.volume, mount.path)
            for mount in machine.config.mounts or ()
        ]
        configs = {
            image: await self.engine.image_config(image) for image in file_images(machine.config)
        }
        config = for_engine(machine, app, directory, mounts, self.log_file(machine), configs)
        config = replace(config, root_disk=await self.roots.disk_of(machine, directory))
        key = GuestFile(PUBLIC_KEY, self.fly_src.public_key)
        config = replace(config, files=[key, *config.files])
        if self.inside:
            door = GuestMount(self.inside.door(machine.app, machine.id), "/.fly/api")
            config = replace(config, mounts=[*config.mounts, door])
        if not machine.config.containers:
            return await self.engine.start(config)
        return await boot_containers(
            self.engine,
            machine,
            app,
            config,
            self.changed,
            lambda text: self.log(machine, text),
            (self.timings.restart_backoff_s, self.timings.restart_backoff_max_s),
            configs,
            await self._temp_dirs.make(machine, directory),
        )

    async def discard(self, machine: Machine) -> None:
        """Remove a machine's files."""
        if self.inside:
            await self.inside.destroyed(machine.id)
        self.roots.drop(machine.id)
        self._temp_dirs.drop(machine.id)
        await self._clear(self._machines / machine.id)
        self.log_file(machine).unlink(missing_ok=True)

    async def _clear(self, directory: Path) -> None:
        for path in (*directories_of(directory), directory):
            if path.exists():
                await self.engine.discard(path)

    def buried(self, machine: Machine) -> None:
        """Let go of what a destroyed machine held."""
        machine.destroyed_ms = now_ms()
        machine.lease = None
        self.schedules.disarm(machine.id)
        if volume := self.store.volumes.get(machine.volume):
            volume.bound_until_ms = now_ms() + round(self.timings.volume_bond_s * 1000)
            self.store.put(volume)
        self.changed(machine)
        dead = [life.machine for life in self.lives.values() if life.machine.destroyed_ms]
        share_files(dead)
        for old in sorted(dead, key=lambda machine: machine.destroyed_ms)[:-MAX_DESTROYED]:
            self.forget(old)

    def forget(self, machine: Machine) -> None:
        """Drop every trace of a machine."""
        self.lives.pop(machine.id, None)
        self._listed.pop(machine.id, None)
        self.store.drop(machine)

    async def remove_volume(self, volume: Volume) -> None:
        """Remove the content of a volume, and its snapshots."""
        for one in (volume.id, *(snapshot.id for snapshot in volume.snapshots)):
            await self.volumes.remove(one)

    def arrange_death(self, life: Work, *, only: int | None = None) -> None:
        """Kill a machine some time after its start, if a fault says so.

        Args:
            life: The machine, which is started.
            only: Id of the one fault to look at.
        """
        fault = self.faults.take("death", life.machine, life.cause, only=only)
        if fault is not None:
            ran_s = (now_ms() - life.machine.started_ms) / 1000
            self.kill_later(life, max(0.0, fault.delay_s - ran_s))

    def arrange_deaths(self, only: int) -> None:
        """As `arrange_death`, for the machines that were started before this fault was there."""
        for life in list(self.lives.values()):
            if life.machine.state == "started":
                self.arrange_death(life, only=only)

    def kill_later(self, life: Work, delay_s: float) -> None:
        """Kill what runs now, unless something else has ended it by then."""
        running = life.running

        async def work() -> None:
            await asyncio.sleep(delay_s)
            if running is not None and life.running is running:
                await running.kill()

        self.spawn(work(), f"death of {life.machine.id}")

    async def close(self, patience_s: float) -> None:
        """End every machine; what has not ended after `patience_s` is left to the engine."""
        ending = asyncio.gather(*(life.shut_down() for life in self.lives.values()))
        try:
            await asyncio.wait_for(ending, patience_s)
        except TimeoutError:
            print("some machines did not end in time", file=sys.stderr)  # noqa: T201 - own log
        for task in tuple(self._tasks):
            task.cancel()
        await self.engine.close()
        self.volumes.close()
        self.roots.close()
        self._temp_dirs.close()
        self.store.close()
