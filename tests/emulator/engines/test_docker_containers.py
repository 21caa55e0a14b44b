"""A machine of several containers on a docker daemon, from the API to the daemon and back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import docker
import pytest

from pytest_flymachines.emulator.engines import docker_client
from pytest_flymachines.emulator.launch import EmulatorProcess, launch
from tests.emulator.conftest import App, Fly, eventually
from tests.emulator.engines import dockerd
from tests.emulator.test_containers import create, inside, states, until

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def emulator(docker_host: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmulatorProcess]:
    monkeypatch.setenv("DOCKER_HOST", docker_host)
    with launch(engine="docker", apps=["pod"], timeout_s=90) as process:
        yield process


@pytest.fixture
def app(emulator: EmulatorProcess) -> Iterator[App]:
    fly = Fly(emulator)
    yield App(fly, "pod")
    fly.close()


@pytest.fixture
def daemon(docker_host: str) -> Iterator[Any]:
    client = docker.DockerClient(docker_host)
    yield client.api
    client.close()


def shell(name: str, script: str, **config: Any) -> dict[str, Any]:
    mounts = [{"name": "common", "path": "/common"}]
    exec_ = ["sh", "-c", script]
    return {"name": name, "image": dockerd.IMAGE, "exec": exec_, "mounts": mounts, **config}


def test_life_of_containers(app: App, daemon: Any) -> None:
    """Dependencies, checks, network, suspend, stop, start, destroy."""
    check = {"http": {"port": 8000, "path": "/page"}, "interval": 1, "success_threshold": 1}
    machine = create(
        app,
        shell(
            "server",
            "exec httpd -f -p 8000 -h /common",
            depends_on=[{"name": "init", "condition": "exited_successfully"}],
            healthchecks=[{"name": "page", **check}],
        ),
        shell("init", "echo hello > /common/page", restart={"policy": "no"}),
        shell("last", "sleep 1000", depends_on=[{"name": "server", "condition": "healthy"}]),
    )
    for _ in range(2):
        until(machine, server="started", init="stopped", last="started")
        ask = r"printf 'GET /page HTTP/1.0\r\n\r\n' | nc 127.0.0.1 8000"
        assert inside(machine, "last", ask).endswith("hello\n")
        assert "httpd" not in inside(machine, "last", "ps")
        inside(machine, "server", "echo mine > /own")
        assert inside(machine, "last", "cat /own || echo no") == "no\n"
        assert app.fly.ok("GET", f"{machine.path}/memory")["limit_mb"] == 256
        machine.post("suspend")
        machine.wait("suspended")
        machine.post("start")
        machine.wait("started")
        assert inside(machine, "server", "cat /own") == "mine\n"
        machine.post("stop")
        machine.wait("stopped")
        assert set(states(machine).values()) == {"stopped"}
        machine.post("start")
    machine.wait("started")
    machine.destroy()
    mine = {"label": docker_client.OWNER}
    eventually(lambda: not daemon.containers(all=True, filters=mine))
