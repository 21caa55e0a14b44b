"""Real machines for the handle's tests: an emulator, one machine, and both ways into it."""

from __future__ import annotations

import base64
import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

from pytest_flymachines._clock import SystemClock
from pytest_flymachines._http import PoolTransport
from pytest_flymachines.agent.channel import AgentChannel
from pytest_flymachines.api import MachinesClient
from pytest_flymachines.backend import PatientTransport
from pytest_flymachines.emulator.launch import EmulatorProcess, launch
from pytest_flymachines.machine_config import GUEST_DIR, Identity, machine_config
from pytest_flymachines.sandbox import Attachment, Sandbox
from pytest_flymachines.sandbox.api_channel import ApiChannel
from pytest_flymachines.sandbox.channel import Channel
from pytest_flymachines.sandbox.ports import EmulatorPorts
from pytest_flymachines.spec import SandboxSpec
from tests.emulator.engines import dockerd, hostimage

APP = "handle-tests"
SPEC = SandboxSpec(app=APP, auto_destroy=False)
IMAGE = "test/this-computer:1"
TOKEN = hashlib.sha256(b"the agent of the handle's tests").hexdigest()


@dataclass
class World:
    """One emulator with its client; on docker its machines have an image of their own."""

    emulator: EmulatorProcess
    client: MachinesClient
    transport: PatientTransport
    image: str = ""

    @cached_property
    def handle(self) -> str:
        """A machine for all tests that end none; its id."""
        return self.machine(SPEC, "handle")

    def apart(self) -> AbstractContextManager[World]:
        """The same emulator, reached over connections of its own."""
        return reach(self.emulator, self.image)

    def machine(self, spec: SandboxSpec, name: str, files: Mapping[str, str] | None = None) -> str:
        """Start a machine that has an agent, and more programs beside it; its id."""
        identity = Identity(name=name, metadata={}, ttl_s=3600)
        spec = spec.replace(image=self.image or spec.image)
        config = machine_config(spec, identity, agent_token=TOKEN)
        for program, text in (files or {}).items():
            content = base64.b64encode(text.encode()).decode()
            path = f"{GUEST_DIR}/{program}"
            config["files"].append({"guest_path": path, "raw_value": content, "mode": 0o755})
        machine = self.client.create_machine(APP, config, name=name)
        self.client.wait(APP, machine.id, "started", version=machine.instance_id)
        return machine.id

    def channel(self, way: str, machine_id: str) -> Channel:
        """One of the ways into a machine."""
        if way == "api":
            return ApiChannel(self.client, APP, machine_id, SystemClock())
        return AgentChannel(
            self.transport,
            base_url=self.emulator.proxy_url,
            host=f"{APP}.fly.dev",
            app=APP,
            machine_id=machine_id,
            token=TOKEN,
            clock=SystemClock(),
        )

    def sandbox(self, way: str, machine_id: str, spec: SandboxSpec) -> Sandbox:
        """A handle as provisioning would make it."""
        channel = self.channel(way, machine_id)
        machine = self.client.get_machine(APP, machine_id)
        plain = Attachment(
            client=self.client,
            channel=channel,
            clock=SystemClock(),
            app=APP,
            machine_id=machine_id,
            region=machine.region,
            spec=spec,
            workdir=spec.workdir,
            agent_url=self.emulator.proxy_url if way == "agent" else None,
            ports=EmulatorPorts(
                self.transport,
                self.emulator.control_url,
                self.emulator.token,
                APP,
                machine_id,
            )
            if way == "api"
            else None,
        )
        workdir = Sandbox(plain).exec("pwd").stdout.rstrip("\n")
        return Sandbox(Attachment(**{**vars(plain), "workdir": workdir}))


@contextmanager
def reach(emulator: EmulatorProcess, image: str) -> Iterator[World]:
    """Connections to an emulator, closed with the block."""
    with (
        closing(PatientTransport(PoolTransport(), SystemClock())) as transport,
        MachinesClient(emulator.token, base_url=emulator.api_url, pace=False) as client,
    ):
        yield World(emulator, client, transport, image)


@contextmanager
def open_world(engine: str) -> Iterator[World]:
    """An emulator that ends with the block; docker's with a daemon of its own."""
    with ExitStack() as stack:
        if engine == "docker":
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            daemon = dockerd.daemon(directory, {IMAGE: hostimage.root_file_system})
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            patch.setenv("DOCKER_HOST", stack.enter_context(daemon))
        emulator = stack.enter_context(launch(engine=engine, apps=[APP]))
        yield stack.enter_context(reach(emulator, IMAGE if engine == "docker" else ""))
