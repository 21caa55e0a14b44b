"""The ways by which a user's cook-agent comes into a machine, and what they cost in requests."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from pytest_flymachines import backend, foreign_agent
from pytest_flymachines.agent.bundle import build as build_agent
from pytest_flymachines.backend import Backend, build
from pytest_flymachines.cassettes import Recorder
from pytest_flymachines.emulator.launch import EmulatorProcess, launch
from pytest_flymachines.errors import MachineStartFailed
from pytest_flymachines.foreign_agent import CONFIG_BYTES, config_files
from pytest_flymachines.machine_config import Identity
from pytest_flymachines.options import OPTIONS
from pytest_flymachines.provision import attach
from pytest_flymachines.provision import launch as provision
from pytest_flymachines.sandbox import Sandbox
from pytest_flymachines.settings import Settings
from pytest_flymachines.sharing import RunInfo
from pytest_flymachines.spec import SandboxSpec
from tests.emulator.engines import dockerd

APP = "foreign"
COUNTED = re.compile(r"/v1/apps/[^/]+/machines(/[^/]+(/(exec|wait|metadata.*))?)?")
# Those of any launch: create, wait, and a look at what has started.
LAUNCH = ["POST machines", "GET wait", "GET machine"]


class World:
    """An emulator, and machines launched in it as a live run would."""

    def __init__(
        self, emulator: EmulatorProcess, log: Path, scratch: Path, image: str = "debian:12"
    ) -> None:
        self._log = log
        self._image = image
        self._scratch = scratch
        values = {option.name: option.default for option in OPTIONS}
        values |= {"cassettes": Path(), "api_url": emulator.api_url, "mode": "live"}
        settings = Settings(
            **values,
            chosen="live",
            why="",
            token=emulator.token,
            proxy_url=emulator.proxy_url,
            scrub=(),
            rootdir=Path(),
        )
        info = RunInfo(run_id="foreign", directory=str(scratch))
        self.backend: Backend = build(settings, info, Recorder(scratch / "none", mode="off"))
        self._count = 0

    def launch(self, agent: Path) -> Sandbox:
        self._count += 1
        identity = Identity(
            name=f"m{self._count}", metadata={"pytest_flymachines_run": "foreign"}, ttl_s=600
        )
        spec = SandboxSpec(app=APP, image=self._image, agent=str(agent), auto_destroy=False)
        launched = provision(self.backend, spec, identity, rootdir=self._scratch)
        return attach(self.backend, spec, launched, rootdir=self._scratch)

    def counted(self) -> list[str]:
        """Requests so far that a rate limit of Fly's counts."""
        entries = [json.loads(line) for line in self._log.read_text().splitlines()]
        kinds = []
        for entry in entries:
            if COUNTED.fullmatch(entry.get("path") or ""):
                last = entry["path"].rpartition("/")[2]
                kinds.append(f"{entry['method']} {re.sub('^[0-9a-f]{14}$', 'machine', last)}")
        return kinds


@contextmanager
def open_world(scratch: Path, engine: str = "auto", image: str = "debian:12") -> Iterator[World]:
    log = scratch / "requests.log"
    with launch(engine=engine, apps=[APP], log=log) as emulator:
        world = World(emulator, log, scratch, image)
        with closing(world.backend):
            yield world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with (
        open_world(tmp_path_factory.mktemp("foreign")) as world,
        pytest.MonkeyPatch.context() as patch,
    ):
        # a computer that has much else to do starts an agent late; no request is to ask why
        patch.setattr(backend, "_ASK_EVERY_S", 60.0)
        yield world


@pytest.fixture(scope="module")
def poor_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Machines without python3: ours cannot run there, so all goes over the Machines API."""
    if why := dockerd.missing():
        pytest.skip(why)
    with (
        dockerd.daemon(tmp_path_factory.mktemp("dockerd")) as url,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("DOCKER_HOST", url)
        with open_world(tmp_path_factory.mktemp("poor"), "docker", dockerd.IMAGE) as world:
            yield world


def program(path: Path, padding: int = 0) -> Path:
    """Our own agent as a foreign one, made larger with what nothing compresses."""
    path.write_bytes(b"#!/usr/bin/env -S python3 -I\n" + os.urandom(padding) + build_agent())
    path.chmod(0o755)
    return path


def digest_of(sandbox: Sandbox) -> str:
    path = "${PYTEST_FLYMACHINES_ROOT:-}/opt/pytest-flymachines/cook-agent"
    return sandbox.exec(f'sha256sum <"{path}"').stdout.split()[0]


def test_a_small_one_travels_in_the_config_and_costs_no_request(
    world: World, tmp_path: Path
) -> None:
    agent = program(tmp_path / "agent")
    before = len(world.counted())
    sandbox = world.launch(agent)
    assert world.counted()[before:] == LAUNCH
    assert digest_of(sandbox) == hashlib.sha256(agent.read_bytes()).hexdigest()
    sandbox.destroy()


def test_a_large_one_goes_up_over_our_agent(world: World, tmp_path: Path) -> None:
    agent = program(tmp_path / "agent", CONFIG_BYTES)
    before = len(world.counted())
    sandbox = world.launch(agent)
    assert world.counted()[before:] == LAUNCH
    assert digest_of(sandbox) == hashlib.sha256(agent.read_bytes()).hexdigest()
    sandbox.destroy()


@pytest.mark.parametrize("padding", [0, CONFIG_BYTES], ids=["in the config", "uploaded"])
def test_it_is_there_again_after_a_stop(world: World, tmp_path: Path, padding: int) -> None:
    sandbox = world.launch(program(tmp_path / "agent", padding))
    sandbox.stop()
    sandbox.start()
    listening = sandbox.exec("cat /proc/net/tcp /proc/net/tcp6 2>/dev/null").stdout
    assert f":{7422:04X} " in listening
    sandbox.destroy()


def test_what_is_damaged_on_its_way_in_the_config_is_not_started_but_uploaded(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = program(tmp_path / "agent")

    def damaged(spec: SandboxSpec) -> dict[str, bytes]:
        other = gzip.compress(b"#!/bin/sh\necho not this one >&2\n")
        return {**config_files(spec), "cook-agent.gz": other}

    monkeypatch.setattr(foreign_agent, "config_files", damaged)
    sandbox = world.launch(agent)
    assert digest_of(sandbox) == hashlib.sha256(agent.read_bytes()).hexdigest()
    assert "not this one" not in sandbox.logs()
    sandbox.destroy()


def test_one_that_changes_under_our_hands_is_refused(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = program(tmp_path / "agent", CONFIG_BYTES)

    def then_built_anew(spec: SandboxSpec) -> dict[str, bytes]:
        files = dict(config_files(spec))
        agent.write_bytes(agent.read_bytes() + b"x")
        return files

    monkeypatch.setattr(foreign_agent, "config_files", then_built_anew)
    with pytest.raises(MachineStartFailed, match="changed while it was brought"):
        world.launch(agent)


@pytest.mark.parametrize("way", ["in the config", "in pieces"])
def test_an_image_without_python_gets_it_too(
    poor_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    agent = tmp_path / "agent"
    script = b"#!/bin/sh\necho started with $*\nexec nc -ll -p 7422 -e cat\n"
    agent.write_bytes(script + os.urandom(20_000))
    if way == "in pieces":
        monkeypatch.setattr(foreign_agent, "CONFIG_BYTES", 0)
    before = len(poor_world.counted())
    with pytest.warns(UserWarning, match="the image has no python3"):
        sandbox = poor_world.launch(agent)
    pieces = poor_world.counted()[before:].count("POST exec")
    assert sandbox.read_file("/opt/pytest-flymachines/cook-agent") == agent.read_bytes()
    assert sandbox.logs().endswith("\nstarted with -listen :7422\n")
    # what looks for the agent, prepares the workspace, and waits
    most = 8
    assert (pieces > most) == (way == "in pieces")
    sandbox.destroy()


class TestConfigFiles:
    def test_nothing_without_an_agent_of_the_users(self) -> None:
        assert config_files(SandboxSpec()) == config_files(SandboxSpec(agent="off")) == {}

    def test_the_program_compressed_and_its_digest(self, tmp_path: Path) -> None:
        path = tmp_path / "agent"
        path.write_bytes(b"word " * 1_000_000)
        files = config_files(SandboxSpec(agent=str(path)))
        assert gzip.decompress(files["cook-agent.gz"]) == path.read_bytes()
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert files["cook-agent.sha256"] == f"{digest}\n".encode()

    def test_only_the_digest_of_one_that_does_not_fit(self, tmp_path: Path) -> None:
        path = tmp_path / "agent"
        path.write_bytes(os.urandom(CONFIG_BYTES + 1))
        assert list(config_files(SandboxSpec(agent=str(path)))) == ["cook-agent.sha256"]

    def test_the_same_bytes_each_time(self, tmp_path: Path) -> None:
        path = tmp_path / "agent"
        path.write_bytes(b"x" * 100)
        spec = SandboxSpec(agent=str(path))
        assert config_files(spec) == config_files(spec)
