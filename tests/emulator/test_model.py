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
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from pytest_flymachines.emulator.launch import EmulatorProcess
from tests.emulator.conftest import App, Fly, Machine, Serve, eventually
from tests.emulator.fidelity import shows
from tests.emulator.machine_model import Answer, Op, State, after, explain, rest, settled

EXAMPLES = int(os.environ.get("EMULATOR_MODEL_EXAMPLES", "6"))
STEPS = int(os.environ.get("EMULATOR_MODEL_STEPS", "25"))
CLIENTS = 3
#: More deaths than these within five minutes, and `on-failure` may give up.
MAX_KILLS = 8
SLEEP: dict[str, Any] = {"image": "alpine", "init": {"exec": ["sleep", "inf"]}}
ACTIONS = (
    *("start", "stop", "suspend", "restart", "update", "destroy", "acquire", "release"),
    *("exec", "mark", "look", "kill", "metadata"),
)
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

    emulator: EmulatorProcess
    machines = Bundle("machines")

    def __init__(self) -> None:
        super().__init__()
        self.clients = [Fly(self.emulator) for _ in range(CLIENTS)]
        self.name = next(APPS)
        self.clients[0].ok("POST", "/v1/apps", {"name": self.name, "org_slug": "personal"})
        self.known: list[Known] = []
        self.pool = ThreadPoolExecutor(CLIENTS)

    @rule(
        target=machines,
        skip_launch=st.booleans(),
        policy=st.sampled_from(["no", "on-failure", "always"]),
        auto_destroy=st.booleans(),
        name=st.sampled_from(["one", "two", "three", "four"]),
    )
    def create(self, *, skip_launch: bool, policy: str, auto_destroy: bool, name: str) -> Any:
        config = {**SLEEP, "restart": {"policy": policy}, "auto_destroy": auto_destroy}
        body = {"name": name, "config": config, "skip_launch": skip_launch}
        app = App(self.clients[0], self.name)
        answer = app.fly("POST", app.machines, body)
        # A name is free again once its machine is gone.
        holders = [known for known in self.known if known.name == name]
        held = [known for known in holders if not _gone(rest(known.possible))]
        if answer.status_code == 409:
            assert any(holder.machine.id in answer.json()["error"] for holder in holders)
            return multiple()
        assert answer.status_code == 200, answer.text
        assert not [known for known in held if not _may_be_gone(known)]
        state = State(policy=policy, auto_destroy=auto_destroy, launch=not skip_launch)
        known = Known(Machine(app, answer.json()["id"]), name, config, state)
        self.known.append(known)
        return known

    @rule(
        known=machines,
        client=st.integers(0, CLIENTS - 1),
        action=st.sampled_from(ACTIONS),
        flag=st.booleans(),
    )
    def one(self, known: Known, client: int, action: str, *, flag: bool) -> None:
        """One request, and its answer is what the reference says."""
        op = self._op(known, client, action, flag)
        answer = self._send(known, op)
        note(f"{op}: {answer}")
        before = known.possible
        known.possible = after(before, op, answer)
        assert known.possible, f"{op} cannot answer {answer} in {rest(before)}"

    @rule(
        known=machines,
        actions=st.lists(
            st.tuples(st.sampled_from(ACTIONS), st.booleans()), min_size=2, max_size=CLIENTS
        ),
    )
    def at_once(self, known: Known, actions: list[tuple[str, bool]]) -> None:
        """Requests of several clients at once, as if made in some order."""
        ops = [self._op(known, client, *action) for client, action in enumerate(actions)]
        answers = list(self.pool.map(lambda op: self._send(known, op), ops))
        note(f"{ops}: {answers}")
        before = known.possible
        known.possible = explain(before, list(zip(ops, answers, strict=True)))
        assert known.possible, f"{ops} cannot answer {answers} in {rest(before)}"

    @rule(known=machines)
    def settle(self, known: Known) -> None:
        """Left alone, it comes to rest, and all that can be read of it agrees."""
        allowed = settled(known.possible)
        shown = eventually(lambda: self._shown(known, allowed))
        known.possible = frozenset(
            state for state in allowed if state.phase == (shown["state"] if shown else "destroyed")
        )
        if shown and shown["state"] != "destroyed":
            self._agrees(known, shown)

    @invariant()
    def list_has_every_machine_that_lives(self) -> None:
        app = App(self.clients[0], self.name)
        listed = {item["id"] for item in app.fly.ok("GET", app.machines)}
        assert {known.machine.id for known in self.known if not _may_be_gone(known)} <= listed
        gone = {known.machine.id for known in self.known if _gone(known.possible)}
        assert not gone & listed

    def teardown(self) -> None:
        self.clients[0].ok("DELETE", f"/v1/apps/{self.name}?force=true")
        for client in self.clients:
            client.close()
        self.pool.shutdown()

    def _op(self, known: Known, client: int, action: str, flag: bool) -> Op:
        if action == "kill":
            known.kills += 1
            action = "kill" if known.kills <= MAX_KILLS else "look"
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
    Clients.emulator = emulator
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
