"""Images out of a private registry, with the credentials that the user has for it."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from pytest_flymachines.emulator.engines.base import Engine, EngineError, ImageNotFound
from pytest_flymachines.emulator.engines.docker import DockerEngine
from tests.emulator.engines import dockerd
from tests.emulator.engines.lab import Lab, output
from tests.emulator.engines.registry import PASSWORD, USER, Registry, missing, serve

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    if why := missing():
        pytest.skip(why)
    with serve(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.fixture(scope="module")
def digest(docker_host: str, registry: Registry) -> str:
    """Of the image `HOST/team/tool:1` in the registry, which the daemon does not have itself."""
    client = docker.DockerClient(docker_host)
    name = f"{registry.host}/team/tool"
    image = client.images.get(dockerd.IMAGE)
    image.tag(name, "1")
    auth = {"username": USER, "password": PASSWORD}
    said = client.api.push(name, tag="1", auth_config=auth, stream=True, decode=True)
    found: str = next(line["aux"]["Digest"] for line in said if "aux" in line)
    client.images.remove(f"{name}:1")
    client.close()
    return found


@pytest.fixture
def daemon(docker_host: str, registry: Registry) -> Iterator[Any]:
    """The daemon, without the registry's image also afterwards."""
    client = docker.DockerClient(docker_host)
    yield client.api
    for image in client.api.images():
        # With the last tag goes the digest.
        for name in image["RepoTags"] or image["RepoDigests"] or ():
            if name.startswith(registry.host):
                client.api.remove_image(name)
    client.close()


@pytest.fixture
async def engine_of(
    docker_host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[[dict[str, Any]], Engine]]:
    """An engine of a user with this `config.json`."""
    engines: list[Engine] = []

    def make(config: dict[str, Any]) -> Engine:
        (tmp_path / "config.json").write_text(json.dumps(config))
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
        monkeypatch.setenv("DOCKER_HOST", docker_host)
        engines.append(DockerEngine(tmp_path / "engine"))
        return engines[-1]

    yield make
    for engine in engines:
        await engine.close()


Maker = Callable[[dict[str, Any]], Engine]


def logged_in(registry: Registry) -> dict[str, Any]:
    """What `docker login` writes."""
    secret = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    return {"auths": {registry.host: {"auth": secret}}}


async def test_tag_is_pulled_and_run(
    engine_of: Maker, registry: Registry, digest: str, daemon: Any, tmp_path: Path
) -> None:
    engine = engine_of(logged_in(registry))
    image = f"{registry.host}/team/tool:1"
    assert await engine.resolve_image(image) == digest
    lab = Lab(engine, tmp_path / "engine", tmp_path, image)
    assert await output(await lab.start(), "echo from the registry") == "from the registry"
    await lab.end()


async def test_digest_is_pulled(
    engine_of: Maker, registry: Registry, digest: str, daemon: Any
) -> None:
    engine = engine_of(logged_in(registry))
    assert await engine.resolve_image(f"{registry.host}/team/tool@{digest}") == digest


async def test_credential_helper_is_asked(
    engine_of: Maker,
    registry: Registry,
    digest: str,
    daemon: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As with the keychains of desktops and clouds: the secret is in no file."""
    secret = json.dumps({"ServerURL": registry.host, "Username": USER, "Secret": PASSWORD})
    helper = tmp_path / "docker-credential-test"
    helper.write_text(f"#!/bin/sh\ncat >> {tmp_path}/asked\necho '{secret}'\n")
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    engine = engine_of({"credHelpers": {registry.host: "test"}})
    assert await engine.resolve_image(f"{registry.host}/team/tool:1") == digest
    assert registry.host in (tmp_path / "asked").read_text()


@pytest.mark.parametrize("password", [None, "wrong"])
async def test_refusal_of_the_registry_says_so(
    engine_of: Maker, registry: Registry, digest: str, daemon: Any, password: str | None
) -> None:
    secret = base64.b64encode(f"{USER}:{password}".encode()).decode()
    config = {"auths": {registry.host: {"auth": secret}}} if password else {}
    image = f"{registry.host}/team/tool:1"
    with pytest.raises(EngineError, match="docker login") as raised:
        await engine_of(config).resolve_image(image)
    assert image in str(raised.value)
    assert not isinstance(raised.value, ImageNotFound)


async def test_tag_that_the_registry_does_not_have(
    engine_of: Maker, registry: Registry, digest: str, daemon: Any
) -> None:
    with pytest.raises(ImageNotFound, match="team/tool:2"):
        await engine_of(logged_in(registry)).resolve_image(f"{registry.host}/team/tool:2")
