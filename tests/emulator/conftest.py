"""An emulator with the tiny engine in a process of its own, and a client that checks answers."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from pytest_flymachines.emulator import launch as launching
from pytest_flymachines.emulator.launch import EmulatorProcess, launch
from tests.emulator.schema import check

R = TypeVar("R")

REPOSITORY = Path(__file__).parents[2]
NAMES = (f"app-{number}" for number in itertools.count(1))

#: What stands beside `config` in the body of create.
REQUEST_FIELDS: tuple[str, ...] = (
    *("name", "region", "skip_launch", "lease_ttl", "skip_secrets"),
    *("skip_service_registration", "min_secrets_version"),
)

Serve = Callable[..., contextlib.AbstractContextManager[EmulatorProcess]]


def eventually(condition: Callable[[], R]) -> R:
    """What a condition gives once it holds; a test that waits in vain fails after a minute."""
    deadline = time.monotonic() + 60
    while not (held := condition()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)
    return held


class Fly:
    """A client of one emulator; every answer is checked against its shape."""

    def __init__(self, emulator: EmulatorProcess, token: str | None = None) -> None:
        self.emulator = emulator
        headers = {"authorization": f"Bearer {token or emulator.token}"}
        # A cookie jar as in fly-go; no proxy of the environment stands between.
        self.http = httpx.Client(
            base_url=emulator.api_url, headers=headers, timeout=70, trust_env=False
        )
        self.control = httpx.Client(
            base_url=emulator.control_url, headers=headers, timeout=70, trust_env=False
        )

    def __call__(self, method: str, path: str, body: Any = None, **options: Any) -> httpx.Response:
        if body is not None:
            options["content"] = json.dumps(body)
        response = self.http.request(method, path, **options)
        check(response)
        return response

    def ok(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        """The body of an answer that must be a success."""
        response = self(method, path, body, **options)
        assert response.status_code < 300, response.text
        return response.json() if response.content else None

    def error(self, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, str]:
        """Status and text of an answer that must be an error."""
        response = self(method, path, body, **options)
        assert response.status_code >= 400, response.text
        return response.status_code, response.json()["error"]

    def fault(self, spec: str) -> int:
        """Put a fault in force."""
        answer = self.control.post("/faults", json={"spec": spec})
        assert answer.status_code == 201, answer.text
        number: int = answer.json()["id"]
        return number

    def close(self) -> None:
        self.http.close()
        self.control.close()


class App:
    """An app of one test."""

    def __init__(self, fly: Fly, name: str) -> None:
        self.fly = fly
        self.name = name
        self.path = f"/v1/apps/{name}"
        self.machines = f"{self.path}/machines"

    def create(self, *command: str, wait: str | None = "started", **config: Any) -> Machine:
        """Create a machine that runs a command, and wait for a state."""
        request = {key: config.pop(key) for key in REQUEST_FIELDS if key in config}
        init: dict[str, Any] = {"init": {"exec": list(command)}} if command else {}
        body: dict[str, Any] = {**request, "config": {"image": "alpine", **init, **config}}
        made = self.fly.ok("POST", self.machines, body)
        machine = Machine(self, made["id"])
        if wait:
            machine.wait(wait)
        return machine


class Machine:
    """A machine of one test."""

    def __init__(self, app: App, machine_id: str) -> None:
        self.fly = app.fly
        self.app = app
        self.id = machine_id
        self.path = f"{app.machines}/{machine_id}"

    def get(self) -> dict[str, Any]:
        shown: dict[str, Any] = self.fly.ok("GET", self.path)
        return shown

    @property
    def state(self) -> str:
        return str(self.get()["state"])

    def post(self, action: str, body: Any = None, **options: Any) -> Any:
        return self.fly.ok("POST", f"{self.path}/{action}", body, **options)

    def wait(self, state: str, **params: Any) -> dict[str, Any]:
        query = {"state": state, "timeout": 30, **params}
        answer: dict[str, Any] = self.fly.ok("GET", f"{self.path}/wait", params=query)
        return answer

    def exec(self, *command: str, **body: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self.post("exec", {"command": list(command), **body})
        return answer

    def ready(self) -> Machine:
        """Wait until its program has made a file named `ready`."""
        eventually(lambda: self.exec("test", "-e", "ready")["exit_code"] == 0)
        return self

    def passing(self) -> None:
        """Wait until its first check passes."""
        eventually(lambda: self.get()["checks"][0]["status"] == "passing")

    def events(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.fly.ok(
            "GET", f"{self.path}/events", params={"limit": 50}
        )
        return found

    def exits(self) -> list[dict[str, Any]]:
        """The exit events' requests, newest first."""
        return [event["request"] for event in self.events() if event["type"] == "exit"]

    def destroy(self) -> None:
        self.fly.ok("DELETE", self.path, params={"force": "true"})
        self.wait("destroyed")


@pytest.fixture(scope="session")
def serve() -> Serve:
    """Start emulators with the tiny engine: `serve(*arguments, **timings)`."""

    @contextlib.contextmanager
    def start(
        *arguments: str, owner_pid: int | None = None, token: str | None = None, **timings: float
    ) -> Iterator[EmulatorProcess]:
        with pytest.MonkeyPatch.context() as patch:
            program = [*launching._program()[:-1], "tests.emulator.serve"]
            patch.setattr(launching, "_program", lambda: program)
            patch.setenv("EMULATOR_TIMINGS", json.dumps(timings))
            patch.setenv("PYTHONPATH", str(REPOSITORY))
            emulator = launch(extra=arguments, owner_pid=owner_pid, token=token)
        with emulator:
            yield emulator

    return start


@pytest.fixture(scope="module")
def emulator(serve: Serve) -> Iterator[EmulatorProcess]:
    """One emulator for the tests of a module."""
    with serve() as process:
        yield process


@pytest.fixture(scope="module")
def fly(emulator: EmulatorProcess) -> Iterator[Fly]:
    client = Fly(emulator)
    yield client
    client.close()


@pytest.fixture
def app(fly: Fly) -> App:
    """An app of the test's own."""
    name = next(NAMES)
    fly.ok("POST", "/v1/apps", {"name": name, "org_slug": "personal"})
    return App(fly, name)


@pytest.fixture
def faults(fly: Fly) -> Iterator[Callable[[str], int]]:
    """Put faults in force for this test."""
    yield fly.fault
    fly.control.delete("/faults").raise_for_status()
