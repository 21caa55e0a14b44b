"""A machine as Fly describes it: a model to hold the emulator against.

Written from Fly's documentation and from answers of its servers, not from the emulator:
https://fly.io/docs/machines/machine-states/ for the states, `restart policy`, `suspend-resume`
and `leases` for the rest. A machine changes in the background too, so that a client can only know
a set of states that it may be in; an answer that none of them explains is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import permutations

__all__ = ["Answer", "Op", "State", "after", "explain", "rest", "settled"]

AT_REST = ("started", "stopped", "suspended", "failed", "destroyed")
ON_THE_WAY_UP = ("starting", "restarting")


@dataclass(frozen=True)
class State:
    """What may be true of a machine.

    Attributes:
        phase: The state as the API names it.
        launch: It will be started once it is prepared (a create without `skip_launch`).
        resume: Its start is a resume, which keeps memory and files.
        up_next: What an update leads to: `starting`, `stopped` or `created`.
        dying: Its main process was killed, which nobody may have noticed yet.
        marked: Its root file system has the mark that a client left.
        version: How many updates were accepted.
        lease: The client that holds the lease.
    """

    phase: str = "created"
    policy: str = "no"
    auto_destroy: bool = False
    launch: bool = True
    resume: bool = False
    up_next: str = ""
    dying: bool = False
    marked: bool = False
    version: int = 0
    lease: int | None = None


@dataclass(frozen=True)
class Op:
    """A request of a client.

    Attributes:
        nonce: It carried the nonce of the client's lease.
        current: The version that an update is meant for; None asks for any.
    """

    client: int
    action: str
    nonce: bool = False
    force: bool = False
    skip_launch: bool = False
    current: int | None = None


@dataclass(frozen=True)
class Answer:
    """What matters of an answer: the status, and what exec said about the mark."""

    status: int
    marked: bool | None = None


def settled(states: Iterable[State]) -> frozenset[State]:
    """The states at rest that these lead to."""
    return frozenset(state for state in rest(states) if state.phase in AT_REST and not state.dying)


def rest(states: Iterable[State]) -> frozenset[State]:
    """These states, and all that they lead to in the background."""
    found = set(states)
    todo = list(found)
    while todo:
        for following in _background(todo.pop()):
            if following not in found:
                found.add(following)
                todo.append(following)
    return frozenset(found)


def after(states: Iterable[State], op: Op, answer: Answer) -> frozenset[State]:
    """The states after an answer; none if nothing explains it."""
    return frozenset(
        following
        for state in rest(states)
        for status, marked, following in _step(state, op)
        if status == answer.status and (answer.marked is None or answer.marked == marked)
    )


def explain(states: Iterable[State], done: list[tuple[Op, Answer]]) -> frozenset[State]:
    """The states after requests that were made at once, in any order that explains the answers."""
    found: set[State] = set()
    for order in permutations(done):
        possible = frozenset(states)
        for op, answer in order:
            possible = after(possible, op, answer)
        found |= possible
    return frozenset(found)


def _background(state: State) -> Iterator[State]:
    if state.dying and state.phase in ("started", "suspending", "suspended"):
        gone = replace(state, dying=False, marked=False)
        if state.policy == "no":
            yield replace(gone, phase=_stopped(state))
        else:
            yield replace(gone, phase="restarting")
    match state.phase:
        case "created":
            yield replace(state, phase="starting" if state.launch else "stopped")
        case "starting":
            # A resume that comes to nothing is a cold boot; a boot has a fresh root.
            yield replace(
                state, phase="started", resume=False, marked=state.marked and state.resume
            )
        case "restarting":
            yield replace(state, phase="starting", dying=False, resume=False)
        case "stopping":
            yield replace(state, phase=_stopped(state), dying=False, marked=False)
        case "suspending":
            yield replace(state, phase="suspended")
        case "replacing":
            yield replace(state, phase=state.up_next, up_next="", dying=False, resume=False)
        case "destroying":
            yield replace(state, phase="destroyed", lease=None)


def _stopped(state: State) -> str:
    return "destroying" if state.auto_destroy and state.policy == "no" else "stopped"


Steps = Iterator[tuple[int, bool | None, State]]


def _step(state: State, op: Op) -> Steps:
    """What a request may answer in a state, and the state after it."""
    if state.phase == "destroyed":
        yield 404, None, state
        return
    if state.phase == "destroying":
        # Not documented; it must be a refusal that says so, or nothing at all.
        for status in (200, 201, 204, 404, 409, 412):
            yield status, None, state
        return
    if op.action in ("exec", "mark", "look", "kill", "metadata"):
        yield from _unleased(state, op)
        return
    mine = op.nonce and state.lease == op.client
    if state.lease is not None and not mine:
        yield (404 if op.action == "release" else 409), None, state
        return
    match op.action:
        case "acquire":
            yield 201, None, replace(state, lease=op.client)
        case "release":
            if mine:
                yield 200, None, replace(state, lease=None)
            else:
                yield 404, None, state
        case "start":
            yield from _start(state)
        case "stop":
            if state.phase in ("stopped", "stopping"):
                yield 200, None, state
            else:
                yield 200, None, replace(state, phase="stopping", up_next="")
        case "suspend":
            if state.phase == "started":
                yield 200, None, replace(state, phase="suspending")
            else:
                yield (200 if state.phase == "suspended" else 412), None, state
        case "restart":
            if state.phase in ("started", "stopped", "suspended", "failed"):
                yield 200, None, replace(state, phase="restarting")
            else:
                yield 412, None, state
        case "update":
            yield from _update(state, op)
        case "destroy":
            if op.force or state.phase in ("stopped", "suspended", "failed", "created"):
                yield 200, None, replace(state, phase="destroying")
            else:
                yield 412, None, state


def _unleased(state: State, op: Op) -> Steps:
    """What needs no lease: exec, signals, metadata."""
    if op.action == "metadata":
        yield 204, None, state
        return
    if state.phase != "started" or state.dying:
        yield 412, None, state
    if state.phase != "started":
        return
    if op.action == "kill":
        yield 200, None, replace(state, dying=True)
    elif op.action == "mark":
        yield 200, None, replace(state, marked=True)
    elif op.action == "look":
        yield 200, state.marked, state
    else:
        yield 200, None, state


def _start(state: State) -> Steps:
    match state.phase:
        case "started":
            yield 200, None, state
        case "stopped" | "failed":
            yield 200, None, replace(state, phase="starting", resume=False)
        case "suspended":
            yield 200, None, replace(state, phase="starting", resume=True)
        case phase:
            yield (409 if phase in ON_THE_WAY_UP else 412), None, state


def _update(state: State, op: Op) -> Steps:
    if op.current not in (None, state.version):
        yield 412, None, state
        return
    if state.phase == "replacing":
        yield 409, None, state
        return
    if state.phase == "created":
        up_next = "created"
    elif state.phase in ("stopped", "stopping") or op.skip_launch:
        up_next = "stopped"
    else:
        up_next = "starting"
    launch = state.launch and not (op.skip_launch and up_next == "created")
    yield (
        200,
        None,
        replace(
            state, phase="replacing", up_next=up_next, launch=launch, version=state.version + 1
        ),
    )
