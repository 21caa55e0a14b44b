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
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pytest_flymachines import backend, provision
from pytest_flymachines.api import MachinesClient
from pytest_flymachines.attempts import ENDED
from pytest_flymachines.backend import Backend
from pytest_flymachines.budget import check_budget
from pytest_flymachines.cassettes import Recorder
from pytest_flymachines.errors import (
    AgentUnavailable,
    ApiError,
    FlyMachinesError,
    MachineGone,
    NotFound,
    SettingsError,
)
from pytest_flymachines.machine_config import Identity
from pytest_flymachines.marks import (
    DEADLINE_KEY,
    LOCK_KEY,
    OWNER_KEY,
    RUN_KEY,
    SPEC_KEY,
    TTL_KEY,
    USER_PREFIX,
    machine_name,
    stamp,
)
from pytest_flymachines.progress import Progress, silent
from pytest_flymachines.sandbox import Sandbox
from pytest_flymachines.sandbox.attachment import Started
from pytest_flymachines.sandbox.workspace import PRISTINE
from pytest_flymachines.settings import Settings
from pytest_flymachines.sharing import Intent, Launched, LostBefore, RunInfo, SharedState
from pytest_flymachines.spec import SandboxSpec

__all__ = ["Run", "build", "identity", "owner"]


@dataclass
class _Shared:
    """One shared sandbox, as this process has it.

    Attributes:
        spec: What it was asked to be.
        launched: What its launch said of it.
        sandbox: The handle that tests have.
        version: Of the state that this follows.
        lost: Why it is no more, where no state says so.
    """

    spec: SandboxSpec
    launched: Launched
    sandbox: Sandbox
    version: tuple[int, int] | None
    lost: str = ""


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
        progress: Progress = silent,
    ) -> None:
        self.settings = settings
        self.info = info
        self.worker = worker
        self.backend = backend
        self.recorder = recorder
        self.progress = progress
        self._state = SharedState(Path(info.directory)) if info is not None else None
        self._shared: dict[str, _Shared] = {}
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
        key = spec.key if self.settings.share == "run" else self._own(spec)
        with self._lock:
            if key not in self._shared:
                version, launched, sandbox = self._obtain(key, spec)
                self._shared[key] = _Shared(spec, launched, sandbox, version)
            return self._shared[key].sandbox

    def fresh_sandbox(self, spec: SandboxSpec) -> Sandbox:
        """A sandbox that nobody shares; it ends with the run, or by its `destroy()`.

        Raises: as `sandbox`.
        """
        with self._lock:
            launched = self._launch(f"{self._own(spec)}-{len(self._fresh) + 1}", spec)
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
        path = at.channel.make_workspace(PRISTINE)
        private = Sandbox(
            replace(at, channel=at.channel.with_base(path), workdir=os.fsdecode(path))
        )
        self._private.append(private)
        yield private
        self._private.remove(private)
        keep = self.settings.keep
        if keep == "never" or (keep == "failed" and not failed()):
            # one that cannot be dropped goes with its machine
            with suppress(AgentUnavailable, ApiError, MachineGone):
                at.channel.drop_workspace(path)

    def kept_workspaces(self) -> list[str]:
        """Where the private workspaces of a test that has failed just now will stay, if asked."""
        if self.settings.keep == "never":
            return []
        return [f"kept on machine {p.machine_id}: {p.workdir}" for p in self._private]

    def take_started(self) -> list[Started]:
        """Processes and terminals that were started since this was last asked."""
        taken: list[Started] = []
        for handle in [*(s.sandbox for s in self._shared.values()), *self._fresh, *self._private]:
            taken += handle.started
            handle.started.clear()
        return taken

    def refresh(self) -> None:
        """Before a test: follow what other workers, or this one, found out since the last one.

        Costs a look at a local file. A handle whose machine was replaced leads to the new one
        from now on; where nobody has replaced it yet, that is done here.

        Raises:
            MachineGone: It died, and `--fly-on-lost` is `fail`.
            MachineStartFailed: The new one did not come up.
        """
        with self._lock:
            for key, shared in self._shared.items():
                if shared.lost:
                    raise LostBefore(shared.lost)
                if self._state is None or self._state.version(key) == shared.version:
                    continue
                version, launched, sandbox = self._obtain(key, shared.spec)
                if launched.machine_id != shared.launched.machine_id:
                    shared.sandbox.attach(sandbox.attachment)
                shared.launched, shared.version = launched, version

    def check_alive(self) -> list[str]:
        """After a failure that a dead machine may explain: which shared ones died, in words.

        With `--fly-on-lost=relaunch` they are forgotten, so that the next test gets another;
        else every test that follows, in every worker, fails at once and for this reason.
        """
        told = []
        with self._lock:
            for key, shared in self._shared.items():
                if state := self._ended(shared.launched):
                    told.append(self._lose(key, shared, state))
        return told

    def _ended(self, launched: Launched) -> str:
        """The state of a machine that runs no more; empty while it does, or nobody knows."""
        try:
            machine = self.client.get_machine(launched.app, launched.machine_id)
        except NotFound:
            return "destroyed"
        except FlyMachinesError:
            return ""
        if machine.host_status == "unreachable":
            return "on a host that cannot be reached"
        return machine.state if machine.state in ENDED else ""

    def _lose(self, key: str, shared: _Shared, state: str) -> str:
        launched = shared.launched
        told = f"machine {launched.machine_id} of this run is {state}: it died under the tests"
        advice = f"`fly machine status {launched.machine_id} -a {launched.app}` may say why"
        replace = self.settings.on_lost == "relaunch" and not self.settings.machine
        if replace:
            told += "; the tests that follow get another one"
        elif self.settings.machine:
            told += f"; {advice}"
        else:
            told += (
                f"; {advice}, and --fly-on-lost=relaunch gives the tests that follow another one"
            )
        if self._state is not None and not self.settings.machine:
            self._state.lose(key, launched.machine_id, told, replace=replace)
        else:
            shared.lost = told
        return told

    def close(self) -> None:
        """Give back connections; machines stay, for the controller to end."""
        self.backend.close()

    def _own(self, spec: SandboxSpec) -> str:
        """Key of a sandbox of this worker alone, also among the shards of a run."""
        shard = f"-{self.info.shard}" if self.info and self.info.shard else ""
        return f"{spec.key}-{self.worker}{shard}"

    def _obtain(
        self, key: str, spec: SandboxSpec
    ) -> tuple[tuple[int, int] | None, Launched, Sandbox]:
        """Attach or launch; with the version of the state that this follows."""
        existing = self.settings.machine or ""
        with self.recorder.provisioning(spec, machine=existing):
            if self.backend.mode == "replay":
                existing = self.recorder.recorded_machine()
            launched = self._attach_or_launch(key, spec, existing)
            version = self._state.version(key) if self._state else None
            sandbox = self._attach(spec, launched, borrowed=bool(existing))
        self.recorder.identify(
            None if existing else spec,
            id=launched.machine_id,
            name=launched.name,
            private_ip=launched.private_ip,
        )
        return version, launched, sandbox

    def _attach_or_launch(self, key: str, spec: SandboxSpec, existing: str) -> Launched:
        if existing:
            return self._existing(existing, spec)
        if self._state is None:
            return self._launch(key, spec)
        return self._state.attach_or_launch(key, lambda: self._launch(key, spec))

    def _launch(self, key: str, spec: SandboxSpec) -> Launched:
        return provision.launch(
            self.backend,
            spec,
            identity(self.settings, self.info, key),
            rootdir=self.settings.rootdir,
            note=partial(self._note, spec),
            progress=self.progress,
        )

    def _note(self, spec: SandboxSpec, intent: Intent) -> None:
        """Write down what may exist from now on, unless it would cost too much."""
        budget = self.settings.budget
        if self._state is None:
            return
        if budget is None or self.backend.mode != "live" or intent.machine_id or intent.over:
            self._state.intend(intent)
            return

        def allowed(noted: list[Intent]) -> None:
            others = [other for other in noted if other.name != intent.name]
            check_budget(budget, spec, others, self.settings.ttl)

        self._state.intend(intent, allowed)

    def _attach(self, spec: SandboxSpec, launched: Launched, *, borrowed: bool = False) -> Sandbox:
        return provision.attach(
            self.backend,
            spec,
            launched,
            rootdir=self.settings.rootdir,
            borrowed=borrowed,
        )

    def _existing(self, machine_id: str, spec: SandboxSpec) -> Launched:
        """A machine that the user named; it is never destroyed by us."""
        self.recorder.identify(None, id=machine_id)
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
    """Who runs this, as metadata: user@host; in a container the user may have no name."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def build(
    settings: Settings,
    info: RunInfo | None,
    worker: str,
    recorder: Recorder,
    progress: Progress = silent,
) -> Run:
    """The run of one process."""
    behind = backend.build(settings, info, recorder)
    return Run(settings, info, worker, behind, recorder, progress)


def identity(settings: Settings, info: RunInfo | None, key: str) -> Identity:
    """Name and metadata of the machine that a run makes for `key`."""
    info = info or RunInfo(run_id="replay", directory="")
    place = f"{socket.gethostname()} {info.directory}"
    users = {USER_PREFIX + info.shard: stamp(settings.ttl)} if info.shard else {}
    return Identity(
        name=machine_name(info.run_id, key),
        metadata={
            RUN_KEY: info.run_id,
            SPEC_KEY: key,
            OWNER_KEY: owner() if info.directory or info.shard else "replay",
            LOCK_KEY: hashlib.sha256(place.encode()).hexdigest()[:12],
            TTL_KEY: str(settings.ttl),
            DEADLINE_KEY: stamp(settings.ttl),
            **users,
        },
        ttl_s=settings.ttl,
    )
