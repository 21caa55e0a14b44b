"""One run, as one of its processes sees it: mode, run id, and one machine per spec.

Workers launch, under a lock, and attach; what only the controller does is in `controller.py`.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from pytest_flymachines import backend, provision
from pytest_flymachines.api import MachinesClient
from pytest_flymachines.backend import Backend
from pytest_flymachines.cassettes import Recorder
from pytest_flymachines.creation import LOCK_KEY, OWNER_KEY, RUN_KEY, SPEC_KEY
from pytest_flymachines.deadline import DEADLINE_KEY, TTL_KEY, stamp
from pytest_flymachines.errors import MachineGone, NotFound, SettingsError
from pytest_flymachines.machine_config import Identity
from pytest_flymachines.prices import SOURCE, spec_hourly_usd
from pytest_flymachines.sandbox import Sandbox
from pytest_flymachines.sandbox.attachment import Started
from pytest_flymachines.settings import Settings
from pytest_flymachines.sharing import Intent, Launched, RunInfo, SharedState
from pytest_flymachines.spec import SandboxSpec

__all__ = ["Run", "build", "identity", "owner"]

_ENDED = frozenset({"stopped", "stopping", "failed", "destroying", "destroyed"})


class Run:
    """One run, as one of its processes sees it.

    Args:
        settings: What the user asked for.
        info: From the controller; None in replay.
        worker: `gw0` and so on; `main` where there are no workers.
        backend: Made by `backend.build`.
        recorder: What the backend's requests go through.
        progress: Told each step of a launch.
    """

    def __init__(
        self,
        settings: Settings,
        info: RunInfo | None,
        worker: str,
        backend: Backend,
        recorder: Recorder,
        progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.settings = settings
        self.info = info
        self.worker = worker
        self.backend = backend
        self.recorder = recorder
        self.progress = progress
        self._state = SharedState(Path(info.directory)) if info is not None else None
        self._shared: dict[str, tuple[Launched, Sandbox]] = {}
        self._fresh: list[Sandbox] = []
        self._private: list[Sandbox] = []
        self._lock = threading.RLock()

    @property
    def client(self) -> MachinesClient:
        """The Machines API client of this run."""
        return self.backend.client

    def sandbox(self, spec: SandboxSpec) -> Sandbox:
        """This process's handle of the machine that the run has for `spec`.

        Raises:
            SettingsError: The spec cannot be met.
            MachineStartFailed: It did not come up, here or in another worker.
            MachineGone: It died, and `--fly-on-lost` is `fail`.
        """
        key = spec.key if self.settings.share == "run" else f"{spec.key}-{self.worker}"
        with self._lock:
            if key not in self._shared:
                with self.recorder.provisioning(spec):
                    launched = self._attach_or_launch(key, spec)
                    sandbox = self._attach(spec, launched)
                self.recorder.identify(
                    spec,
                    id=launched.machine_id,
                    name=launched.name,
                    private_ip=launched.private_ip,
                )
                self._shared[key] = launched, sandbox
            return self._shared[key][1]

    def fresh_sandbox(self, spec: SandboxSpec) -> Sandbox:
        """A sandbox that nobody shares; it ends with the run, or by its `destroy()`.

        Raises: as `sandbox`.
        """
        with self._lock:
            name = f"{spec.key}-{self.worker}-{len(self._fresh) + 1}"
            launched = self._launch(name, spec)
            sandbox = self._attach(spec, launched)
            self._fresh.append(sandbox)
            return sandbox

    def workspace(self, spec: SandboxSpec, failed: Callable[[], bool]) -> Iterator[Sandbox]:
        """A sandbox whose workspace is a private copy, as it was after the clone.

        Args:
            spec: Whose machine.
            failed: Asked at the end: whether the test failed, and `--fly-keep` may keep it.
        """
        shared = self.sandbox(spec)
        at = shared.attachment
        path = at.channel.make_workspace(provision.PRISTINE)
        private = Sandbox(
            replace(at, channel=at.channel.with_base(path), workdir=os.fsdecode(path))
        )
        self._private.append(private)
        yield private
        self._private.remove(private)
        keep = self.settings.keep
        if keep == "never" or (keep == "failed" and not failed()):
            at.channel.drop_workspace(path)

    def take_started(self) -> list[Started]:
        """Processes and terminals that were started since this was last asked."""
        taken: list[Started] = []
        for handle in [*(s for _, s in self._shared.values()), *self._fresh, *self._private]:
            taken += handle.started
            handle.started.clear()
        return taken

    def check_alive(self) -> None:
        """Notice a shared machine that died since the last test.

        With `--fly-on-lost=relaunch` it is forgotten, so that the next test gets another.

        Raises:
            MachineGone: It died, and `--fly-on-lost` is `fail`.
        """
        if self._state is None:
            return
        for key, (launched, _) in list(self._shared.items()):
            if state := self._ended(launched):
                self._lose(key, launched, state)

    def _ended(self, launched: Launched) -> str:
        try:
            state = self.client.get_machine(launched.app, launched.machine_id).state
        except NotFound:
            state = "destroyed"
        return state if state in _ENDED else ""

    def _lose(self, key: str, launched: Launched, state: str) -> None:
        assert self._state is not None
        told = f"machine {launched.machine_id} of this run is {state}: it died under the tests."
        if self.settings.on_lost == "fail" or self.settings.machine:
            raise MachineGone(
                f"{told} `fly machine status {launched.machine_id} -a {launched.app}` may say "
                "why; --fly-on-lost=relaunch gives the tests that follow another one."
            )
        self._state.drop(key, launched.machine_id)
        del self._shared[key]
        self.progress(f"{told} Launching another one.")

    def close(self) -> None:
        """Give back connections; machines stay, for the controller to end."""
        self.client.close()

    def _attach_or_launch(self, key: str, spec: SandboxSpec) -> Launched:
        if self.settings.machine:
            return self._existing(self.settings.machine, spec)
        if self._state is None:
            return self._launch(key, spec)
        return self._state.attach_or_launch(key, lambda: self._launch(key, spec))

    def _launch(self, key: str, spec: SandboxSpec) -> Launched:
        who = identity(self.settings, self.info, key)
        if self._state is not None:
            self._check_budget(spec, len(self._state.intents()))
            self._state.intend(Intent(app=spec.app, name=who.name))
        return provision.launch(
            self.backend, spec, who, rootdir=self.settings.rootdir, progress=self.progress
        )

    def _check_budget(self, spec: SandboxSpec, machines: int) -> None:
        """Refuse a launch that could cost more than was allowed, if nothing ended it but TTL."""
        if self.settings.budget is None or self.backend.mode != "live":
            return
        hourly = spec_hourly_usd(spec)
        if hourly is None:
            raise SettingsError(
                f"--fly-budget={self.settings.budget:g}: the price of {spec.cpu_kind}-{spec.cpus}x "
                f"is not known to this version ({SOURCE}), so it cannot be held; leave the budget "
                "out or ask for shared-1x"
            )
        estimate = hourly * self.settings.ttl / 3600 * (machines + 1)
        if estimate > self.settings.budget:
            raise SettingsError(
                f"--fly-budget={self.settings.budget:g}: {machines + 1} machine(s) for "
                f"{self.settings.ttl} s cost about ${estimate:.4f} ({SOURCE}); raise the budget, "
                "lower --fly-ttl or ask for less memory"
            )

    def _attach(self, spec: SandboxSpec, launched: Launched) -> Sandbox:
        return provision.attach(
            self.backend,
            spec,
            launched,
            rootdir=self.settings.rootdir,
            borrowed=self.settings.machine is not None,
        )

    def _existing(self, machine_id: str, spec: SandboxSpec) -> Launched:
        """A machine that the user named; it is never destroyed by us."""
        try:
            machine = self.client.get_machine(spec.app, machine_id)
        except NotFound as error:
            raise SettingsError(
                f"--fly-machine={machine_id!r}: app {spec.app} has no such machine ({error}); "
                f"`fly machine list -a {spec.app}` shows what it has"
            ) from error
        if machine.state != "started":
            raise SettingsError(
                f"--fly-machine={machine_id!r} is {machine.state}, expected started: "
                f"`fly machine start {machine_id} -a {spec.app}`"
            )
        return provision.existing(self.backend, spec, machine)


def owner() -> str:
    """Who runs this, as metadata: user@host."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def build(settings: Settings, info: RunInfo | None, worker: str, recorder: Recorder) -> Run:
    """The run of one process."""
    return Run(settings, info, worker, backend.build(settings, info, recorder), recorder)


def identity(settings: Settings, info: RunInfo | None, key: str) -> Identity:
    """Name and metadata of the machine that a run makes for `key`."""
    info = info or RunInfo(run_id="replay", directory="")
    place = f"{socket.gethostname()} {info.directory}"
    return Identity(
        name=f"pytest-{info.run_id[:12]}-{key}",
        metadata={
            RUN_KEY: info.run_id,
            SPEC_KEY: key,
            OWNER_KEY: owner(),
            LOCK_KEY: hashlib.sha256(place.encode()).hexdigest()[:12],
            TTL_KEY: str(settings.ttl),
            DEADLINE_KEY: stamp(settings.ttl),
        },
        ttl_s=settings.ttl,
    )
