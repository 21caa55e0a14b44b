"""Several clients do random things to machines, and the model explains every answer.

`EMULATOR_MODEL_EXAMPLES=500` tries that many sequences instead of a few; `EMULATOR_MODEL_STEPS`
says how long they are.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    rule,
    run_state_machine_as_test,
)

from pytest_flymachines.emulator.launch import EmulatorProcess
from tests.emulator.conftest import App, Fly, Machine, Serve, eventually
from tests.emulator.fidelity import shows
from tests.emulator.machine_model import Answer, Op, State, after, explain, rest, settled

EXAMPLES = int(os.environ.get("EMULATOR_MODEL_EXAMPLES", "6"))
STEPS = int(os.environ.get("EMULATOR_MODEL_STEPS", "30"))
CLIENTS = 3
#: More deaths than these within five minutes, and `on-failure` may give up.
MAX_KILLS = 8
#: A main process that takes its time to end.
SLOW = ["sh", "-c", "trap 'sleep 0.2; exit' INT TERM; while :; do sleep 0.02; done"]
#: Those that lead on are asked for more often.
ACTIONS = (
    *("start", "stop", "suspend", "mark", "look") * 4,
    *("restart", "update", "kill", "release") * 2,
    *("acquire", "exec", "metadata", "destroy"),
)
#: There are never more machines that live, so that each comes far.
MAX_MACHINES = 2
APPS = (f"model-{number}" for number in itertools.count(1))


class Known:
    """A machine, and what the clients can know of it."""

    def __init__(self, machine: Machine, name: str, config: dict[str, Any], state: State) -> None:
        self.machine = machine
        self.name = name
        self.config = config
        self.possible = frozenset({state})
        self.nonces: dict[int, str] = {}
        self.metadata: dict[str, str] = {}
        self.versions = {0: machine.get()["instance_id"]}
        self.kills = 0


class Clients(RuleBasedStateMachine):
    """Three clients of one app."""

    clients: list[Fly]

    def __init__(self) -> None:
        super().__init__()
        self.name = next(APPS)
        self.clients[0].ok("POST", "/v1/apps", {"name": self.name, "org_slug": "personal"})
        self.known: list[Known] = []
        self.pool = ThreadPoolExecutor(CLIENTS)

    def living(self) -> list[Known]:
        """The machines that may still live."""
        return [known for known in self.known if not _gone(known.possible)]

    @rule(
        skip_launch=st.sampled_from([False, False, True]),
        policy=st.sampled_from(["no", "on-failure", "always"]),
        auto_destroy=st.sampled_from([False, False, True]),
        slow=st.booleans(),
        name=st.sampled_from(["one", "two", "three"]),
    )
    def create(
        self, *, skip_launch: bool, policy: str, auto_destroy: bool, slow: bool, name: str
    ) -> None:
        """A machine whose name nobody has is made."""
        if len(self.living()) == MAX_MACHINES:
            self.look_around()
            return
        program = SLOW if slow else ["sleep", "inf"]
        self._create(name, program, policy, auto_destroy=auto_destroy, skip_launch=skip_launch)

    @rule(
        which=st.integers(0, MAX_MACHINES - 1),
        client=st.integers(0, CLIENTS - 1),
        actions=st.lists(
            st.tuples(st.sampled_from(ACTIONS), st.booleans()), min_size=1, max_size=3
        ),
        at_rest=st.booleans(),
    )
    def in_turn(
        self, *, which: int, client: int, actions: list[tuple[str, bool]], at_rest: bool
    ) -> None:
        """Requests without a pause are answered as the reference says, whatever is under way."""
        known = self._pick(which)
        if at_rest:
            self._settle(known)
        for action, flag in actions:
            self._one(known, client, action, flag=flag)

    @rule(
        which=st.integers(0, MAX_MACHINES - 1),
        change=st.sampled_from(["stop", "suspend", "restart", "update", "kill"]),
    )
    def mark_and_look(self, which: int, change: str) -> None:
        """A file is there after a resume, and after no other start."""
        known = self._pick(which)
        if known.nonces:
            return
        for action in ("start", "mark", change, "start", "look"):
            self._settle(known)
            if _phases(known) == {"destroyed"} or (action == "start" and _up(known)):
                continue
            self._one(known, 0, action, flag=False)

    @rule()
    def look_around(self) -> None:
        """Left alone, each comes to rest, and the list has those that live."""
        for known in self.living():
            self._settle(known)
        app = App(self.clients[0], self.name)
        listed = {item["id"] for item in app.fly.ok("GET", app.machines)}
        assert listed == {known.machine.id for known in self.living()}

    @rule(
        which=st.integers(0, MAX_MACHINES - 1),
        actions=st.lists(
            st.tuples(st.sampled_from(ACTIONS), st.booleans()), min_size=2, max_size=CLIENTS
        ),
    )
    def at_once(self, which: int, actions: list[tuple[str, bool]]) -> None:
        """Requests of several clients at once are answered as if made in some order."""
        known = self._pick(which)
        ops = [self._op(known, client, *action) for client, action in enumerate(actions)]
        answers = list(self.pool.map(lambda op: self._send(known, op), ops))
        note(f"{ops}: {answers}")
        before = known.possible
        known.possible = explain(before, list(zip(ops, answers, strict=True)))
        assert known.possible, f"{ops} cannot answer {answers} in {rest(before)}"

    def _pick(self, which: int) -> Known:
        # Made here, as no precondition can ask for it: what is drawn must not depend on timing.
        if not self.living():
            self._create("one", SLOW, "no")
        living = self.living() or self.known
        return living[which % len(living)]

    def _create(
        self,
        name: str,
        program: list[str],
        policy: str,
        *,
        auto_destroy: bool = False,
        skip_launch: bool = False,
    ) -> None:
        config = {
            "image": "alpine",
            "init": {"exec": program},
            "restart": {"policy": policy},
            "auto_destroy": auto_destroy,
        }
        body = {"name": name, "config": config, "skip_launch": skip_launch}
        app = App(self.clients[0], self.name)
        answer = app.fly("POST", app.machines, body)
        holders = [known for known in self.known if known.name == name]
        if answer.status_code == 409:
            assert any(holder.machine.id in answer.json()["error"] for holder in holders)
            return
        assert answer.status_code == 200, answer.text
        # A name is free again once its machine is gone.
        assert all(_may_be_gone(holder) for holder in holders)
        state = State(policy=policy, auto_destroy=auto_destroy, launch=not skip_launch)
        self.known.append(Known(Machine(app, answer.json()["id"]), name, config, state))

    def _one(self, known: Known, client: int, action: str, *, flag: bool) -> None:
        op = self._op(known, client, action, flag)
        answer = self._send(known, op)
        note(f"{op}: {answer}")
        before = known.possible
        known.possible = after(before, op, answer)
        assert known.possible, f"{op} cannot answer {answer} in {rest(before)}"

    def _settle(self, known: Known) -> None:
        """It comes to rest, and all that can be read of it agrees."""
        allowed = settled(known.possible)
        shown = eventually(lambda: self._shown(known, allowed)) or {}
        known.possible = frozenset(state for state in allowed if state.phase == shown["state"])
        if shown["state"] != "destroyed":
            self._agrees(known, shown)

    def teardown(self) -> None:
        self.clients[0].ok("DELETE", f"/v1/apps/{self.name}?force=true")
        self.pool.shutdown()

    def _op(self, known: Known, client: int, action: str, flag: bool) -> Op:
        if action == "kill":
            known.kills += 1
            action = "kill" if known.kills <= MAX_KILLS else "look"
        if action == "release" and known.nonces:
            client = next(iter(known.nonces))
        return Op(client, action, client in known.nonces, force=flag, skip_launch=flag)

    def _send(self, known: Known, op: Op) -> Answer:
        machine = Machine(App(self.clients[op.client], self.name), known.machine.id)
        send, path = machine.fly, machine.path
        nonce = known.nonces.get(op.client, "")
        headers = {"fly-machine-lease-nonce": nonce} if op.nonce else {}
        match op.action:
            case "update":
                body = {"config": known.config, "skip_launch": op.skip_launch}
                answer = send("POST", path, body, headers=headers)
            case "destroy":
                force = "true" if op.force else "false"
                answer = send("DELETE", f"{path}?force={force}", headers=headers)
            case "acquire":
                answer = send("POST", f"{path}/lease?ttl=600", headers=headers)
                if answer.status_code == 201:
                    known.nonces[op.client] = answer.json()["data"]["nonce"]
            case "release":
                answer = send("DELETE", f"{path}/lease", headers=headers)
                if answer.status_code == 200:
                    known.nonces.pop(op.client, None)
            case "metadata":
                answer = send("POST", f"{path}/metadata/by{op.client}", {"value": "yes"})
                if answer.status_code == 204:
                    known.metadata[f"by{op.client}"] = "yes"
            case "kill":
                answer = send("POST", f"{path}/signal", {"signal": 9})
            case "exec" | "mark" | "look":
                return self._exec(machine, op.action)
            case action:
                answer = send("POST", f"{path}/{action}", headers=headers)
        return Answer(answer.status_code)

    def _exec(self, machine: Machine, action: str) -> Answer:
        command = {"exec": ["true"], "mark": ["touch", "mark"], "look": ["test", "-e", "mark"]}
        answer = machine.fly("POST", f"{machine.path}/exec", {"command": command[action]})
        if answer.status_code != 200:
            return Answer(answer.status_code)
        done = answer.json()
        if done["exit_signal"]:
            return Answer(412)  # the machine went down in the middle of it
        return Answer(200, done["exit_code"] == 0 if action == "look" else None)

    def _shown(self, known: Known, allowed: frozenset[State]) -> dict[str, Any] | None:
        """What GET says once it is at rest; a machine that is gone counts as destroyed."""
        answer = known.machine.fly("GET", known.machine.path)
        phases = {state.phase for state in allowed}
        if answer.status_code == 404:
            assert "destroyed" in phases, f"it is gone, which is none of {phases}"
            return {"state": "destroyed"}
        shown: dict[str, Any] = answer.json()
        return shown if shown["state"] in phases else None

    def _agrees(self, known: Known, shown: dict[str, Any]) -> None:
        events = known.machine.events()
        kinds = [event["type"] for event in events]
        versions = known.machine.fly.ok("GET", f"{known.machine.path}/versions")
        [updates] = {state.version for state in known.possible}
        assert len(versions) == updates + 1
        assert len({version["version"] for version in versions}) == updates + 1
        assert shown["instance_id"] == shown["version"] == versions[0]["version"]
        if len(events) < 50:
            assert kinds.count("launch") == 1
            assert kinds.count("update") == updates
        stamps = [event["timestamp"] for event in events]
        assert stamps == sorted(stamps, reverse=True)
        assert len({event["id"] for event in events}) == len(events)
        lease = known.machine.fly("GET", f"{known.machine.path}/lease").status_code
        assert (lease == 200) in {state.lease is not None for state in known.possible}
        metadata = known.machine.fly.ok("GET", f"{known.machine.path}/metadata")
        # An update replaces the config, metadata too.
        assert metadata.items() <= known.metadata.items()
        if not updates:
            assert metadata == known.metadata


def _phases(known: Known) -> set[str]:
    return {state.phase for state in known.possible}


def _up(known: Known) -> bool:
    return _phases(known) == {"started"}


def _gone(states: frozenset[State]) -> bool:
    return all(state.phase == "destroyed" for state in states)


def _may_be_gone(known: Known) -> bool:
    return any(state.phase == "destroyed" for state in rest(known.possible))


@pytest.fixture(scope="module")
def emulator(serve: Serve) -> Iterator[EmulatorProcess]:
    """Policy restarts follow each other quickly."""
    with serve(restart_backoff_s=0.01, restart_backoff_max_s=0.02) as process:
        yield process


@shows("lifecycle", "answers and states of random requests by several clients", "docs")
@pytest.mark.timeout(0 if EXAMPLES > 10 else 240)
def test_model_explains_every_answer(emulator: EmulatorProcess) -> None:
    Clients.clients = [Fly(emulator) for _ in range(CLIENTS)]
    run_state_machine_as_test(
        Clients,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            phases=[Phase.generate],  # what depends on timing cannot be made smaller
            suppress_health_check=list(HealthCheck),
            derandomize=EXAMPLES <= 10,
            database=None,
        ),
    )
    for client in Clients.clients:
        client.close()
