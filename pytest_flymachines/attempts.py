"""One try to have a machine: in one region, with lost answers and names that are taken."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from msgspec import structs

from pytest_flymachines.api import Machine
from pytest_flymachines.backend import Backend
from pytest_flymachines.errors import (
    ApiError,
    ApiUnreachable,
    Conflict,
    FlyMachinesError,
    MachineStartFailed,
    NotFound,
    Unauthorized,
)
from pytest_flymachines.machine_config import Identity, machine_config
from pytest_flymachines.marks import LOCK_KEY, RUN_KEY, TTL_KEY, USER_PREFIX, volume_name
from pytest_flymachines.prices import spec_hourly_usd
from pytest_flymachines.sharing import Intent
from pytest_flymachines.spec import SandboxSpec
from pytest_flymachines.volumes import delete_volume, volumes_of

__all__ = ["ENDED", "Attempt", "Created", "Note", "names"]

#: States of a machine that will not run again, or not by itself.
ENDED = frozenset({"stopped", "stopping", "failed", "launch_failed", "destroying", "destroyed"})
# A pull takes up to two minutes; `created` has lasted for hours
# (https://community.fly.io/t/28143), for which no region is worth waiting.
START_TIMEOUT_S = 180.0
# Lists are gossip and lag by seconds
# (https://github.com/superfly/flyctl/blob/master/internal/command/deploy/strategy_bluegreen.go).
_LOOK_FOR_S = 6.0
_NAMES = 9
# An app or image that was made seconds ago is not known everywhere.
_NOT_YET_S = 30.0
_FLY_REGISTRY = "registry.fly.io/"
_NAME_TAKEN = re.compile(r"unique machine name violation(?:, machine ID (\w+))?")

Note = Callable[[Intent], None]
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Created:
    """A machine of the run's that has started.

    Attributes:
        machine: As the API showed it last.
        name: Its name, from which the token of its agent is derived.
        volume_id: Its volume, or empty.
        adopted: Another host's part of the run made it, and may be filling its workspace.
    """

    machine: Machine
    name: str
    volume_id: str = ""
    adopted: bool = False


def names(first: str) -> Iterator[str]:
    """`first`, `first-2`, ...: the same ones for every part of a run."""
    return itertools.chain([first], (f"{first}-{n}" for n in range(2, _NAMES + 1)))


class Attempt:
    """One try, in one region: a volume if the spec has one, a machine, its start."""

    def __init__(
        self,
        backend: Backend,
        spec: SandboxSpec,
        identity: Identity,
        region: str,
        names: Iterator[str],
        files: Mapping[str, bytes] | None,
        note: Note,
    ) -> None:
        self._backend = backend
        self._spec = spec
        self._identity = identity
        self._region = region
        self._names = names
        self._files = files
        self._note = note
        self._volume_id = ""
        self.created: Created | None = None

    def run(self) -> Created:
        """Make it."""
        if self._spec.volume_gb:
            self._volume_id = self._create_volume()
        self.created = created = self._create()
        machine = self._backend.client.wait(
            self._spec.app,
            created.machine.id,
            "started",
            timeout_s=START_TIMEOUT_S,
            version=created.machine.instance_id or None,
        )
        return Created(
            machine=machine,
            name=created.name,
            volume_id=created.volume_id,
            adopted=created.adopted,
        )

    @property
    def adopted(self) -> bool:
        """Another part of the run made it."""
        return self.created is not None and self.created.adopted

    def ended(self) -> str:
        """The state of this try's machine if it runs no more; empty where it may."""
        assert self.created is not None
        try:
            state = self._backend.client.get_machine(self._spec.app, self.created.machine.id).state
        except NotFound:
            return "destroyed"
        except FlyMachinesError:
            return ""
        return state if state in ENDED else ""

    def give_up(self) -> None:
        """Destroy what this try made."""
        if self.created and not self.created.adopted:
            _discard(self._backend, self._spec, self.created, self._note)
        elif self._volume_id:
            self._drop_volume()

    def _create(self) -> Created:
        for name in self._names:
            intended = _intent(self._spec, name, None, self._volume_id)
            self._note(intended)
            try:
                created = self._create_named(name)
            except ApiError as error:
                if not error.ambiguous:
                    self._note(structs.replace(intended, over=True))
                raise
            if created is None:
                self._note(Intent(app=self._spec.app, name=name, over=True))
                continue
            if created.volume_id != self._volume_id:
                self._drop_volume()
            self._note(
                _intent(
                    self._spec, name, created.machine, created.volume_id, adopted=created.adopted
                )
            )
            return created
        raise MachineStartFailed(
            f"{_NAMES} names beginning with {self._identity.name} are taken in app "
            f"{self._spec.app} by machines that are not this run's, or are ending.\n"
            "Use another --fly-run-id or --fly-app."
        )

    def _create_named(self, name: str) -> Created | None:
        """A machine of this name; None where somebody else has it. Never two."""
        backend, spec = self._backend, self._spec
        token = backend.agent_token(name)
        config = machine_config(
            spec,
            self._identity,
            agent_token=token,
            volume_id=self._volume_id,
            files=self._files,
            mode=backend.mode,
        )
        send = partial(
            backend.client.create_machine, spec.app, config, name=name, region=self._region
        )
        for last in (False, False, True):
            try:
                machine = self._when_known(send)
            except (ApiError, ApiUnreachable) as error:
                if taken := _NAME_TAKEN.search(str(error)):
                    return self._adopt(name, taken[1] or "")
                if not error.ambiguous or last:
                    raise
                if found := self._find(name):
                    return Created(machine=found, name=name, volume_id=self._volume_id)
            else:
                return Created(machine=machine, name=name, volume_id=self._volume_id)
        raise AssertionError("unreachable")

    def _adopt(self, name: str, machine_id: str) -> Created | None:
        """The machine that has our name, if it is this run's and alive."""
        found: Machine | None = None
        with suppress(NotFound):
            if machine_id:
                found = self._backend.client.get_machine(self._spec.app, machine_id)
        found = found or self._find(name)
        if found is None or found.state in ENDED:
            return None
        mine = self._identity.metadata
        if found.metadata.get(RUN_KEY) != mine[RUN_KEY]:
            return None
        # Under our own lock nobody else can be at work on it: whoever made it was killed.
        ours = found.metadata.get(LOCK_KEY) == mine.get(LOCK_KEY)
        if not ours:
            self._use(found)
        volume_id = next(iter(volumes_of(found)), "")
        return Created(machine=found, name=name, volume_id=volume_id, adopted=not ours)

    def _use(self, machine: Machine) -> None:
        """Tell the other shards of the run that this one uses the machine, too."""
        for key, value in self._identity.metadata.items():
            if key.startswith(USER_PREFIX):
                self._backend.client.set_metadata(self._spec.app, machine.id, key, value)

    def _find(self, name: str) -> Machine | None:
        """A machine whose create answer was lost."""
        with suppress(ApiUnreachable, ApiError):
            return self._backend.client.find_machine(self._spec.app, name, timeout_s=_LOOK_FOR_S)
        return None

    def _create_volume(self) -> str:
        spec, metadata = self._spec, self._identity.metadata
        send = partial(
            self._backend.client.create_volume,
            spec.app,
            volume_name(metadata[RUN_KEY], int(metadata[TTL_KEY])),
            region=self._region,
            size_gb=spec.volume_gb,
        )
        return self._when_known(send).id

    def _drop_volume(self) -> None:
        """Delete the volume of this try; the end of the run does where that fails."""
        with suppress(FlyMachinesError):
            delete_volume(
                self._backend.client,
                self._spec.app,
                self._volume_id,
                within_s=0,
                clock=self._backend.clock,
            )
        self._volume_id = ""

    def _when_known(self, send: Callable[[], _T]) -> _T:
        """Send; where the app is missing and may be made, make it first."""
        try:
            return send()
        except NotFound as error:
            self._make_app(error)
        except ApiError as error:
            if not self._pushed_just_now(error):
                raise
        clock = self._backend.clock
        deadline = clock.monotonic() + _NOT_YET_S
        while True:
            try:
                return send()
            except ApiError as error:
                not_yet = isinstance(error, (NotFound, Unauthorized))
                if not (not_yet or self._pushed_just_now(error)) or clock.monotonic() >= deadline:
                    raise
            clock.sleep(1.0)

    def _pushed_just_now(self, error: ApiError) -> bool:
        """Whether the image may be one that the API does not see yet; seen on Fly's registry."""
        return "MANIFEST_UNKNOWN" in error.message and self._spec.image.startswith(_FLY_REGISTRY)

    def _make_app(self, error: NotFound) -> None:
        spec = self._spec
        if not spec.org:
            raise MachineStartFailed(
                f"app {spec.app!r} does not exist, or the token cannot see it: {error}\n"
                f"Create it with `fly apps create {spec.app}`, name another one with --fly-app, "
                "or name an organization with --fly-org and it is created for you."
            ) from error
        with suppress(Conflict):  # another worker was faster; if it is somebody else's, sends fail
            self._backend.client.create_app(spec.app, spec.org)


def _discard(backend: Backend, spec: SandboxSpec, created: Created, note: Note) -> None:
    """Destroy a machine and its volume; what cannot be now is left to the end of the run."""
    intent = _intent(spec, created.name, created.machine, created.volume_id)
    try:
        backend.client.destroy_machine(spec.app, created.machine.id, force=True)
        if created.volume_id:
            delete_volume(
                backend.client, spec.app, created.volume_id, within_s=0, clock=backend.clock
            )
    except FlyMachinesError:
        return
    note(structs.replace(intent, over=True))


def _intent(
    spec: SandboxSpec,
    name: str,
    machine: Machine | None,
    volume_id: str,
    *,
    adopted: bool = False,
) -> Intent:
    return Intent(
        app=spec.app,
        name=name,
        machine_id=machine.id if machine else "",
        volume_id=volume_id,
        adopted=adopted,
        hourly_usd=spec_hourly_usd(spec, [machine.region] if machine else ()),
        began=time.time() if machine else 0.0,
    )
