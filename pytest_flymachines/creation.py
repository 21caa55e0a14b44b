"""From a spec to a machine that has started and is prepared: regions in turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import TypeVar

from pytest_flymachines.attempts import Attempt, Created, Note, names
from pytest_flymachines.backend import Backend
from pytest_flymachines.errors import (
    ApiError,
    ApiUnreachable,
    CapacityError,
    CassetteMiss,
    Conflict,
    FlyMachinesError,
    MachineStartFailed,
    NotFound,
    Unauthorized,
    WaitTimeout,
)
from pytest_flymachines.machine_config import Identity
from pytest_flymachines.progress import Progress, silent
from pytest_flymachines.spec import SandboxSpec

__all__ = ["create"]

_T = TypeVar("_T")


def create(
    backend: Backend,
    spec: SandboxSpec,
    identity: Identity,
    prepare: Callable[[Created], _T],
    *,
    files: Mapping[str, bytes] | None = None,
    note: Note = lambda _: None,
    progress: Progress = silent,
) -> _T:
    """A machine that has started and lives until it is prepared, in the first region with one.

    Each region is tried in turn, a single one twice. What did not start, or ended while it was
    prepared, is destroyed. Where the run's name is taken by the run itself, that machine is
    taken; where by somebody else, or by one that is ending, the next name is.

    Args:
        backend: Where.
        spec: What.
        identity: Name, metadata and time to live.
        prepare: Makes of a started machine what is returned.
        files: More files for the machine's config, beside ours.
        note: Told of every machine and volume that may exist from now on.
        progress: Told each try that failed.

    Raises:
        MachineStartFailed: Nothing started; says what each try came to, and what to do.
        Unauthorized: The token is not accepted.
        Exception: What `prepare` raised, on a machine that lives; it is destroyed.
    """
    chosen = names(identity.name)
    tries: list[str] = []
    pending = deque(spec.regions if len(spec.regions) > 1 else spec.regions * 2)
    while pending:
        region = pending.popleft()
        attempt = Attempt(backend, spec, identity, region, chosen, files, note)
        try:
            created = attempt.run()
        except Unauthorized:
            raise
        except (CapacityError, WaitTimeout, Conflict, ApiError, ApiUnreachable) as error:
            failure: FlyMachinesError = error
            if isinstance(error, NotFound) and attempt.created is not None:
                failure = MachineStartFailed(
                    f"machine {attempt.created.machine.id} was gone before it was seen started: "
                    f"its main process ended, or could not run in {spec.image}"
                )
                failure.__cause__ = error
        else:
            try:
                return prepare(created)
            except CassetteMiss:  # another machine would not be recorded, either
                raise
            except Exception as error:
                state = attempt.ended()
                if not state:
                    attempt.give_up()
                    raise
                failure = MachineStartFailed(
                    f"machine {created.machine.id} started, but was {state} before its workspace "
                    f"was ready: its main process ended, or could not run in {spec.image}"
                )
                failure.__cause__ = error
        if attempt.adopted and attempt.ended():
            # the last shard but this one ended it under our hands: the next one is our own
            pending.appendleft(region)
            continue
        attempt.give_up()
        if isinstance(failure, (ApiError, ApiUnreachable)) and not _passing(failure):
            raise MachineStartFailed(
                f"the Machines API refused the machine of this spec: {failure}"
            ) from failure
        tries.append(f"{region}: {failure}")
        if isinstance(failure, CapacityError) and len(spec.regions) == 1:
            break
        if pending:
            line = str(failure).partition("\n")[0]
            progress(f"no machine in {region}, trying {pending[0]}: {line}")
    raise MachineStartFailed(_each(spec, tries))


def _passing(error: ApiError | ApiUnreachable) -> bool:
    """Whether another try, elsewhere, may do better."""
    return isinstance(error, (CapacityError, Conflict)) or error.ambiguous


def _each(spec: SandboxSpec, tries: list[str]) -> str:
    listed = "\n".join(f"  {number}. {text}" for number, text in enumerate(tries, 1))
    return (
        f"no machine ({spec.image}, {spec.cpu_kind}-{spec.cpus}x, {spec.memory_mb} MB) started "
        f"in app {spec.app}; what was tried:\n{listed}\n"
        "Name other regions (--fly-region=ord,iad), ask for a smaller guest, or check the image: "
        "it needs /bin/sh. What did not start was destroyed."
    )
