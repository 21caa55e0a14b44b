"""kill -9 under a stream of writes, again and again: what was answered is there afterwards."""

from __future__ import annotations

import itertools
import os
import random
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from pytest_flymachines.emulator.launch import EmulatorProcess
from tests.emulator.conftest import App, Fly, Serve, eventually
from tests.emulator.fidelity import shows

WRITERS = 3
KILLS = 4


class Fact:
    """What a resource was last said to be, and what it was asked to become since."""

    def __init__(self, path: str, read: Callable[[Any], Any]) -> None:
        self.path = path
        self.read = read
        self.answered: Any = None
        self.asked: Any = None

    def holds(self, fly: Fly) -> None:
        """Fail unless it is as answered, or as asked by a request that nobody answered."""
        answer = fly("GET", self.path)
        found = self.read(answer.json()) if answer.status_code == 200 else None
        assert found in (self.answered, self.asked), self.path
        self.answered = self.asked = found


class Writer(threading.Thread):
    """One client that writes until its server is gone."""

    def __init__(self, app: App, number: int, facts: list[Fact], chance: random.Random) -> None:
        super().__init__()
        self.app = app
        self.number = number
        self.facts = facts
        self.chance = chance
        self.answers = 0
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while True:
                self.step()
                self.answers += 1
        except httpx.TransportError:
            pass
        except BaseException as error:  # noqa: BLE001 - the test says it, not the thread
            self.failure = error

    def step(self) -> None:
        """One write, of a kind that is drawn."""
        value = f"{self.number}-{self.chance.getrandbits(40):x}"
        kind = self.chance.choice(("create", "metadata", "update", "secret", "volume", "destroy"))
        mine = [fact for fact in self.facts if "/machines/" in fact.path and fact.answered]
        if kind == "create" or not mine:
            self.create(value)
        elif kind == "secret":
            fact = self.fact(f"{self.app.path}/secrets/S{self.number}?show_secrets=1", _value)
            self.write(fact, value, "POST", fact.path.partition("?")[0], {"value": value})
        elif kind == "volume":
            made = self.app.fly.ok("POST", f"{self.app.path}/volumes", {"name": "data"})
            fact = self.fact(f"{self.app.path}/volumes/{made['id']}", lambda body: body["size_gb"])
            fact.answered = fact.asked = 3
            self.write(fact, 4, "PUT", f"{fact.path}/extend", {"size_gb": 4})
        else:
            self.change(self.chance.choice(mine), kind, value)

    def create(self, value: str) -> None:
        config = {"image": "alpine", "env": {"V": value}, "metadata": {"m": "0"}}
        body = {"name": value, "config": config, "skip_launch": True}
        made = self.app.fly.ok("POST", self.app.machines, body)
        fact = self.fact(f"{self.app.machines}/{made['id']}", _contents)
        fact.answered = fact.asked = (value, "0")

    def change(self, fact: Fact, kind: str, value: str) -> None:
        env, mark = fact.answered
        if kind == "metadata":
            path = f"{fact.path}/metadata/m"
            self.write(fact, (env, value), "POST", path, {"value": value})
        elif kind == "update":
            config = {"image": "alpine", "env": {"V": value}, "metadata": {"m": mark}}
            # It may still be busy with the update before.
            path = f"{fact.path}/wait?state=stopped&timeout=60"
            self.app.fly.ok("GET", path)
            self.write(fact, (value, mark), "POST", fact.path, {"config": config})
        else:
            self.write(fact, None, "DELETE", f"{fact.path}?force=true", None)

    def write(self, fact: Fact, value: Any, method: str, path: str, body: Any) -> None:
        fact.asked = value
        self.app.fly.ok(method, path, body)
        fact.answered = value

    def fact(self, path: str, read: Callable[[Any], Any]) -> Fact:
        found = next((fact for fact in self.facts if fact.path == path), None)
        if found is None:
            found = Fact(path, read)
            self.facts.append(found)
        return found


def write_until(writers: list[Writer], answers: int, emulator: EmulatorProcess) -> None:
    """Let them write, and kill their server once it has given so many answers."""
    for writer in writers:
        writer.start()
    eventually(
        lambda: (
            sum(writer.answers for writer in writers) >= answers
            or not all(writer.is_alive() for writer in writers)
        )
    )
    os.kill(emulator.pid, signal.SIGKILL)
    for writer in writers:
        writer.join()
        assert writer.failure is None


def _value(body: Any) -> Any:
    return body["value"]


def _contents(body: Any) -> Any:
    """Of a machine; one that is on its way out is gone."""
    if body["state"].startswith("destroy"):
        return None
    return body["config"]["env"]["V"], body["config"]["metadata"]["m"]


@shows("state", "kill -9 at any moment under a stream of writes loses no answer", "ours")
@pytest.mark.parametrize("seed", [1, 2])
def test_kill_at_any_moment_loses_nothing_that_was_answered(
    serve: Serve, tmp_path: Path, seed: int
) -> None:
    state = ("--state", str(tmp_path / "state"))
    facts: list[list[Fact]] = [[] for _ in range(WRITERS)]
    for life in range(KILLS):
        chance = random.Random(f"{seed} {life}")
        with serve("--app", "kept", *state) as emulator:
            clients = [Fly(emulator) for _ in range(WRITERS)]
            for fact in itertools.chain(*facts):
                fact.holds(clients[0])
            writers = [
                Writer(App(client, "kept"), number, facts[number], random.Random(chance.random()))
                for number, client in enumerate(clients)
            ]
            write_until(writers, chance.randrange(1, 60), emulator)
            for client in clients:
                client.close()
    assert sum(map(len, facts)) > KILLS
