"""A machine of several containers on a docker daemon, from the API to the daemon and back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from pytest_flymachines.emulator.engines import disks, docker_client
from pytest_flymachines.emulator.launch import EmulatorProcess, launch
from tests.emulator.conftest import App, Fly, eventually
from tests.emulator.engines import dockerd
from tests.emulator.engines.lab import devices
from tests.emulator.test_containers import create, inside, states, until

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pod") / "state"


@pytest.fixture(scope="module")
def emulator(docker_host: str, state: Path) -> Iterator[EmulatorProcess]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", docker_host)
        with launch(engine="docker", apps=["pod"], state=state, timeout_s=90) as process:
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


@pytest.mark.skipif(bool(disks.missing()), reason=disks.missing())
def test_a_shared_directory_has_a_size(app: App, state: Path) -> None:
    """`temp_dir.size_mb` is the room that containers have there, in each run anew."""
    machine = create(app, *(shell(name, "exec sleep 1000") for name in ("one", "two")))

    def fill(name: str, file: str) -> dict[str, Any]:
        script = f"dd if=/dev/zero of=/common/{file} bs=1M count=8"
        return machine.exec("sh", "-c", script, container=name)

    for _ in range(2):
        until(machine, one="started", two="started")
        assert len(devices(state)) == 1
        assert inside(machine, "two", "ls /common") == "lost+found\n"
        assert fill("one", "file")["exit_code"] == 0
        full = fill("two", "more")
        assert full["exit_code"] != 0
        assert "No space left on device" in full["stderr"]
        assert inside(machine, "two", "stat -c %s /common/file") == f"{8 << 20}\n"
        machine.post("stop", {"signal": "SIGKILL"})
        machine.wait("stopped")
        machine.post("start")
    machine.destroy()
    eventually(lambda: not devices(state))
