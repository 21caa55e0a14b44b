"""Clients of Fly's API that nobody here wrote, against the stand-alone server as it starts.

fly-admin (npm) is told the address, sandboxer (PyPI) reads it from the environment; flaude (PyPI)
has it in a constant. Each does the round that its users do.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import flaude
import httpx
import pytest
from flaude import fly_client, runner, volume
from sandboxer.config import ProviderConfig
from sandboxer.errors import NotFoundError, ProviderError
from sandboxer.providers.fly_machines import FlyMachinesProvider
from sandboxer.types import CreateSandboxRequest, SandboxStatus

from pytest_flymachines.emulator.launch import EmulatorProcess, launch
from tests.emulator.conftest import eventually

NODE_MODULES = Path(sys.prefix) / "npm" / "node_modules"


@pytest.fixture(scope="module")
def emulator() -> Iterator[EmulatorProcess]:
    """As `pytest-flymachines emulator --app demo` starts it: its own engine, rate limits on."""
    with launch(apps=["demo"], rate_limits=True) as process:
        yield process


@pytest.fixture(autouse=True)
def environment(emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLY_API_HOSTNAME", emulator.api_url)
    monkeypatch.setenv("FLY_API_TOKEN", emulator.token)
    monkeypatch.setenv("FLY_APP_NAME", "demo")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(fly_client, "FLY_API_BASE", f"{emulator.api_url}/v1")


@pytest.mark.skipif(shutil.which("node") is None, reason="fly-admin needs node")
@pytest.mark.skipif(
    not (NODE_MODULES / "fly-admin").exists(),
    reason="fly-admin is not there; scripts/test installs it where there is npm",
)
def test_fly_admin_manages_an_app_with_its_machine(emulator: EmulatorProcess) -> None:
    program = Path(__file__).with_name("fly_admin.cjs")
    command = ["node", str(program), str(NODE_MODULES), emulator.api_url, emulator.token]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert run.returncode == 0, run.stderr
    seen = json.loads(run.stdout)
    assert {"demo", "fly-admin"} <= set(seen.pop("apps"))
    assert "sleep inf" in seen.pop("programs")
    assert "lease currently held by" in seen.pop("refused")
    assert seen == {
        "organization": "personal",
        "region": "ord",
        "allocated": True,
        "released": True,
        "gigabytes": 2,
        "listed": ["m"],
        "leased": True,
        "versions": ["2", "1"],
        "exit": 143,
        "previous": "stopped",
    }


def test_sandboxer_makes_pauses_and_ends_a_sandbox() -> None:
    with contextlib.closing(FlyMachinesProvider(ProviderConfig())) as provider:
        _round_of_sandboxer(provider)


def _round_of_sandboxer(provider: FlyMachinesProvider) -> None:
    wanted = CreateSandboxRequest(template="nginx:alpine", metadata={"by": "sandboxer"})
    sandbox, made = provider.create_sandbox(wanted)
    assert made.status == SandboxStatus.STARTING
    eventually(lambda: _state(sandbox.id) == "started")
    info = sandbox.info()
    assert (info.template, info.cpus, info.memory_mb) == ("nginx:alpine", 1, 256)
    assert [one.id for one in provider.list_sandboxes()] == [sandbox.id]
    sandbox.pause()
    eventually(lambda: _state(sandbox.id) == "suspended")
    sandbox.resume()
    eventually(lambda: _state(sandbox.id) == "started")
    with pytest.raises(ProviderError, match="rate limit exceeded"):
        _create_many(provider, 50)
    sandbox.kill()
    eventually(lambda: _state(sandbox.id) == "gone")
    with pytest.raises(NotFoundError):
        provider.attach_sandbox("00000000000000")


def _create_many(provider: FlyMachinesProvider, count: int) -> None:
    for _ in range(count):
        provider.create_sandbox(CreateSandboxRequest())


def test_flaude_runs_a_machine_to_its_end_and_learns_the_exit_code() -> None:
    async def run() -> tuple[tuple[str, int | None], list[str]]:
        app = await flaude.ensure_app("flaude")
        disk = await volume.create_volume(app.name)
        config = flaude.MachineConfig(
            image="debian:stable-slim",
            claude_code_oauth_token="none",
            prompt="none",
            volume_id=disk.id,
            auto_destroy=False,
        )
        machine = await flaude.create_machine(app.name, config, name="job")
        # Its own image would end by itself; this computer is no such image.
        ender = threading.Thread(target=_kill_main_process, args=(app.name, machine.id))
        ender.start()
        ended = await runner.wait_for_machine_exit(app.name, machine.id)
        ender.join()
        await machine.cleanup()
        return ended, [one.name for one in await volume.list_volumes(app.name)]

    (state, exit_code), volumes = asyncio.run(run())
    assert (state, exit_code) == ("stopped", 137)
    assert volumes == ["flaude_session"]


def _state(machine_id: str, app: str = "demo") -> str:
    # Looked at with a client of our own, no more often than Fly allows.
    time.sleep(0.25)
    answer = _ask("GET", f"/v1/apps/{app}/machines/{machine_id}")
    if answer.status_code == 404:
        return "gone"
    return str(answer.json()["state"]).replace("destroyed", "gone")


def _kill_main_process(app: str, machine_id: str) -> None:
    eventually(lambda: _state(machine_id, app) == "started")
    path = f"/v1/apps/{app}/machines/{machine_id}/signal"
    _ask("POST", path, {"signal": "SIGKILL"}).raise_for_status()


def _ask(method: str, path: str, body: object = None) -> httpx.Response:
    headers = {"authorization": f"Bearer {os.environ['FLY_API_TOKEN']}"}
    url = os.environ["FLY_API_HOSTNAME"] + path
    return httpx.request(method, url, headers=headers, json=body, trust_env=False)
