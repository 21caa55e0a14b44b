"""Creating the machine of a sandbox: regions in turn, a lost answer, a name that is taken."""

from __future__ import annotations

import hashlib
import re
import warnings
from contextlib import suppress
from functools import partial

from pytest_flymachines._clock import Clock, SystemClock
from pytest_flymachines.api import Machine, MachinesClient
from pytest_flymachines.backend import Backend
from pytest_flymachines.errors import (
    ApiError,
    ApiUnreachable,
    CapacityError,
    Conflict,
    FlyMachinesError,
    MachineStartFailed,
    NotFound,
    Unauthorized,
)
from pytest_flymachines.machine_config import Identity, machine_config
from pytest_flymachines.spec import SandboxSpec

__all__ = [
    "LOCK_KEY",
    "OWNER_KEY",
    "RUN_KEY",
    "SPEC_KEY",
    "VOLUME_PREFIX",
    "Created",
    "create",
    "delete_volume",
    "discard",
    "volume_name",
]

RUN_KEY = "pytest_flymachines_run"
LOCK_KEY = "pytest_flymachines_lock"
OWNER_KEY = "pytest_flymachines_owner"
SPEC_KEY = "pytest_flymachines_spec"
VOLUME_PREFIX = "ptfm_"
# Lists are gossip and lag by seconds
# (https://github.com/superfly/flyctl/blob/master/internal/command/deploy/strategy_bluegreen.go).
_LOOK_FOR_S = 6.0


class Created:
    """A machine of ours that exists.

    Attributes:
        machine: As the API showed it last.
        volume_id: Its volume, or empty.
        adopted: Somebody else of the run created it, and may be filling its workspace.
    """

    def __init__(self, machine: Machine, volume_id: str = "", adopted: bool = False) -> None:
        self.machine = machine
        self.volume_id = volume_id
        self.adopted = adopted


def create(backend: Backend, spec: SandboxSpec, identity: Identity) -> Created:
    """A new machine in the first region with room, or the one that has its name already.

    Raises:
        MachineStartFailed: No region has room, or the API refused; says what to do.
        Unauthorized: The token is not accepted.
    """
    refusals = []
    for region in spec.regions:
        volume_id = _create_volume(backend, spec, identity, region) if spec.volume_gb else ""
        try:
            return _create_in(backend, spec, identity, region, volume_id)
        except CapacityError as error:
            refusals.append(f"{region}: {error}")
            discard(backend, spec.app, volume_id=volume_id)
        except BaseException:
            discard(backend, spec.app, volume_id=volume_id)
            raise
    raise MachineStartFailed(
        "no region has room for the machine:\n  "
        + "\n  ".join(refusals)
        + "\nName more regions (--fly-region=ord,iad) or ask for a smaller guest."
    )


def discard(backend: Backend, app: str, machine_id: str = "", volume_id: str = "") -> None:
    """Destroy a machine and its volume, whatever state they are in; a failure is a warning.

    The bond between both lingers after the machine's end, so the volume is tried for a minute.
    """
    try:
        if machine_id:
            with suppress(NotFound):
                backend.client.destroy_machine(app, machine_id, force=True)
        if volume_id:
            delete_volume(backend.client, app, volume_id, backend.clock)
    except FlyMachinesError as error:
        warnings.warn(f"could not clean up after a failed launch: {error}", stacklevel=2)


def volume_name(run_id: str) -> str:
    """Name of the volumes of a run: volumes have no metadata, so their name marks them as ours."""
    return f"{VOLUME_PREFIX}{hashlib.sha256(run_id.encode()).hexdigest()[:20]}"


def delete_volume(
    client: MachinesClient, app: str, volume_id: str, clock: Clock | None = None
) -> None:
    """Delete a volume, trying for a minute: its bond with a destroyed machine lingers.

    Raises:
        Conflict: It is still bound to a machine.
    """
    clock = clock or SystemClock()
    deadline = clock.monotonic() + 60
    while True:
        try:
            client.delete_volume(app, volume_id)
        except NotFound:
            return
        except Conflict:
            if clock.monotonic() >= deadline:
                raise
            clock.sleep(2)
        else:
            return


def _create_volume(backend: Backend, spec: SandboxSpec, identity: Identity, region: str) -> str:
    make = partial(
        backend.client.create_volume,
        spec.app,
        volume_name(identity.metadata[RUN_KEY]),
        region=region,
        size_gb=spec.volume_gb,
    )
    try:
        return make().id
    except NotFound as error:
        _create_app(backend, spec, error)
        return make().id


def _create_in(
    backend: Backend, spec: SandboxSpec, identity: Identity, region: str, volume_id: str
) -> Created:
    """One region; never two machines."""
    token = backend.agent_token(identity.name)
    config = machine_config(spec, identity, agent_token=token, volume_id=volume_id)
    last: FlyMachinesError | None = None
    for _ in range(3):
        try:
            machine = backend.client.create_machine(
                spec.app, config, name=identity.name, region=region
            )
            return Created(machine, volume_id)
        except NotFound as error:
            _create_app(backend, spec, error)
        except (CapacityError, Unauthorized):
            raise
        except Conflict as error:
            return _adopt(backend, spec, identity, error)
        except (ApiUnreachable, ApiError) as error:
            if isinstance(error, ApiError) and not error.ambiguous:
                raise MachineStartFailed(
                    f"the Machines API refused the machine of this spec: {error}"
                ) from error
            last = error
            if found := _find(backend, spec, identity):
                return Created(found, volume_id)
    raise MachineStartFailed(
        f"creating {identity.name} in app {spec.app} failed three times, last with: {last}"
    ) from last


def _find(backend: Backend, spec: SandboxSpec, identity: Identity) -> Machine | None:
    """A machine whose create answer was lost."""
    with suppress(ApiUnreachable, ApiError):
        return backend.client.find_machine(spec.app, identity.name, timeout_s=_LOOK_FOR_S)
    return None


def _adopt(backend: Backend, spec: SandboxSpec, identity: Identity, error: Conflict) -> Created:
    """The machine that has our name, if it is this run's."""
    machine_id = _quoted_id(error.message)
    found = backend.client.get_machine(spec.app, machine_id) if machine_id else None
    found = found or _find(backend, spec, identity)
    metadata = found.metadata if found else {}
    if found is None or metadata.get(RUN_KEY) != identity.metadata[RUN_KEY]:
        raise MachineStartFailed(
            f"the name {identity.name} is taken in app {spec.app} by a machine that is not this "
            f"run's: {error}\nUse another --fly-run-id or --fly-app."
        ) from error
    # Under our own lock nobody else can be at work on it: whoever made it was killed.
    ours = metadata.get(LOCK_KEY) == identity.metadata.get(LOCK_KEY)
    return Created(found, adopted=not ours)


def _quoted_id(message: str) -> str:
    """The id in "unique machine name violation, machine ID <id> already exists"."""
    found = re.search(r"machine ID (\w+)", message)
    return found[1] if found else ""


def _create_app(backend: Backend, spec: SandboxSpec, error: NotFound) -> None:
    if not spec.org:
        raise MachineStartFailed(
            f"app {spec.app!r} does not exist, or the token cannot see it: {error}\n"
            f"Create it with `fly apps create {spec.app}`, name another one with --fly-app, or "
            "name an organization with --fly-org and it is created for you."
        ) from error
    backend.client.create_app(spec.app, spec.org)
