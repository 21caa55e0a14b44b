"""Several clients do random things to machines, and the model explains every answer.

`EMULATOR_MODEL_EXAMPLES=500` tries that many sequences instead of a few; `EMULATOR_MODEL_STEPS`
says how long they are, and `EMULATOR_MODEL_ENGINE` which of the real engines runs the machines.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
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
ENGINE = os.environ.get("EMULATOR_MODEL_ENGINE", "auto")
CLIENTS = 3
#: More deaths than these within five minutes, and `on-failure` may give up.
MAX_KILLS = 8
IMAGES = ("alpine", "slow-to-look-up")
#: A main process that takes its time to end.
SLOW = ["sh", "-c", "trap 'sleep 0.2; exit' INT TERM; while :; do sleep 0.02; done"]
#: Those that lead on are asked for more often.
ACTIONS = (
    *("start", "stop", "suspend", "mark", "look") * 4,
    *("restart", "update", "guarded update", "guarded update", "kill", "release") * 2,
    *("acquire", "exec", "metadata", "destroy"),
)
#: There are never more machines that live, so that each comes far.
MAX_MACHINES = 2
APPS = (f"model-{number}" for number in itertools.count(1))


@dataclass(frozen=True)
class Plan:
    """A machine that a client wants."""

    name: str
    policy: str = "no"
    auto_destroy: bool = False
    skip_launch: bool = False
    slow_to_stop: bool = True
    leased: bool = False
    image: str = "alpine"

    @property
    def config(self) -> dict[str, Any]:
        return {
            "image": self.image,
            "init": {"exec": SLOW if self.slow_to_stop else ["sleep", "inf"]},
            "restart": {"policy": self.policy},
            "auto_destroy": self.auto_destroy,
        }


PLANS = st.builds(
    Plan,
    name=st.sampled_from(["one", "two", "three"]),
    policy=st.sampled_from(["no", "on-failure", "always"]),
    auto_destroy=st.sampled_from([False, False, True]),
    skip_launch=st.sampled_from([False, False, True]),
    slow_to_stop=st.booleans(),
    leased=st.sampled_from([False, False, False, True]),
    # An image takes a while to be looked up, in which others may do what they like.
    image=st.sampled_from(IMAGES),
)


class Known:
    """A machine, and what the clients can know of it."""

    def __init__(self, machine: Machine, plan: Plan, state: State) -> None:
        self.machine = machine
        self.name = plan.name
        self.config = plan.config
        self.possible = frozenset({state})
        #: What it may have been while others were asked.
        self.seen = self.possible
        self.nonces: dict[int, str] = {}
        self.metadata: dict[str, str] = {}
        self.kills = 0
        self.instance_id = ""


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

    @rule(plans=st.lists(PLANS, min_size=1, max_size=CLIENTS))
    def create(self, *, plans: list[Plan]) -> None:
        """Of the clients that want a name at once, one gets it if nobody has it."""
        plans = self._room_for(plans)
        if not plans:
            self.look_around()
            return
        self._explain_creates(plans, list(self.pool.map(self._ask_for, range(CLIENTS), plans)))

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
        actions=st.lists(
            st.tuples(st.integers(0, MAX_MACHINES - 1), st.sampled_from(ACTIONS), st.booleans()),
            min_size=2,
            max_size=CLIENTS,
        ),
        alike=st.sampled_from(["nothing", "machine", "action"]),
        plans=st.lists(PLANS, max_size=2),
    )
    def at_once(
        self, *, actions: list[tuple[int, str, bool]], alike: str, plans: list[Plan]
    ) -> None:
        """Requests of several clients at once are answered as if made in some order."""
        asked = []
        for client, (which, action, flag) in enumerate(actions):
            known = self._pick(which if alike == "nothing" else actions[0][0])
            action = actions[0][1] if alike == "action" else action
            asked.append((known, self._op(known, client, action, flag)))
        plans = self._room_for(plans)
        made = [self.pool.submit(self._ask_for, client, plan) for client, plan in enumerate(plans)]
        answers = list(self.pool.map(lambda one: self._send(*one), asked))
        created = [future.result() for future in made]
        for known in dict.fromkeys(known for known, _ in asked):
            done = [
                (op, answer)
                for (other, op), answer in zip(asked, answers, strict=True)
                if other is known
            ]
            note(f"{known.name}: {done}")
            before = known.possible
            known.possible = explain(before, done)
            assert known.possible, f"nothing explains {done} in {rest(before)}"
        self._explain_creates(plans, created)

    def _room_for(self, plans: list[Plan]) -> list[Plan]:
        """Those of as many names as there may be more machines; all that lives is looked at."""
        for known in self.known:
            known.seen = rest(known.possible)
        names = list(dict.fromkeys(plan.name for plan in plans))
        names = names[: MAX_MACHINES - len(self.living())]
        return [plan for plan in plans if plan.name in names]

    def _pick(self, which: int) -> Known:
        # Made here, as no precondition can ask for it: what is drawn must not depend on timing.
        if not self.living():
            plan = Plan("one")
            self._explain_creates([plan], [self._ask_for(0, plan)])
        living = self.living() or self.known
        return living[which % len(living)]

    def _ask_for(self, client: int, plan: Plan) -> httpx.Response:
        app = App(self.clients[client], self.name)
        body = {
            "name": plan.name,
            "config": plan.config,
            "skip_launch": plan.skip_launch,
            "lease_ttl": 600 if plan.leased else 0,
        }
        return app.fly("POST", app.machines, body)

    def _explain_creates(self, plans: list[Plan], answers: list[httpx.Response]) -> None:
        """One of those that wanted a name at once got it, unless it was taken."""
        for name in {plan.name for plan in plans}:
            rivals = [
                (client, plan, answer)
                for client, (plan, answer) in enumerate(zip(plans, answers, strict=True))
                if plan.name == name
            ]
            note(f"{rivals}: {[answer.text for *_, answer in rivals]}")
            self._explain_rivals(
                [known for known in self.known if known.name == name],
                [rival for rival in rivals if rival[2].status_code == 200],
                [answer for *_, answer in rivals if answer.status_code != 200],
            )

    def _explain_rivals(
        self,
        holders: list[Known],
        made: list[tuple[int, Plan, httpx.Response]],
        refused: list[httpx.Response],
    ) -> None:
        # A name is free again once its machine is gone.
        assert len(made) <= 1
        assert made or any(not _gone(holder.seen) for holder in holders)
        assert not made or all(_may_be_gone(holder) for holder in holders)
        for client, plan, answer in made:
            machine = Machine(App(self.clients[0], self.name), answer.json()["id"])
            state = State(
                policy=plan.policy,
                auto_destroy=plan.auto_destroy,
                launch=not plan.skip_launch,
                lease=client if plan.leased else None,
            )
            known = Known(machine, plan, state)
            if plan.leased:
                known.nonces[client] = answer.json()["nonce"]
            self.known.append(known)
            holders = [*holders, known]
        for answer in refused:
            assert answer.status_code == 409, answer.text
            assert any(holder.machine.id in answer.json()["error"] for holder in holders)

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
        # Where a machine is dying, nobody may have noticed yet.
        known.possible = frozenset(
            state for state in rest(known.possible) if state.phase == shown["state"]
        )
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
        current = None
        if action == "guarded update":
            action = "update"
            versions = {state.version for state in known.possible}
            shown = known.machine.fly("GET", known.machine.path)
            if len(versions) == 1 and shown.status_code == 200:
                [current] = versions
                known.instance_id = shown.json()["instance_id"]
        nonce = client in known.nonces
        return Op(client, action, nonce, force=flag, skip_launch=flag, current=current)

    def _send(self, known: Known, op: Op) -> Answer:
        machine = Machine(App(self.clients[op.client], self.name), known.machine.id)
        send, path = machine.fly, machine.path
        nonce = known.nonces.get(op.client, "")
        headers = {"fly-machine-lease-nonce": nonce} if op.nonce else {}
        match op.action:
            case "update":
                body = {"config": known.config, "skip_launch": op.skip_launch}
                if op.current is not None:
                    body["current_version"] = known.instance_id
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
    with serve("--engine", ENGINE, restart_backoff_s=0.01, restart_backoff_max_s=0.02) as process:
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
