"""Image references: from what a config says to `image_ref`."""

from __future__ import annotations

from pytest_flymachines.emulator.answers import Problem
from pytest_flymachines.emulator.config import MachineConfig
from pytest_flymachines.emulator.engines.base import (
    Engine,
    EngineError,
    ImageNotFound,
    ImageNotPulled,
)

__all__ = ["file_images", "image_ref", "resolve", "resolve_all"]

DOCKER_HUB = "registry-1.docker.io"


def image_ref(image: str, digest: str) -> dict[str, object]:
    """The parts of an image's name, a bare name being one of Docker Hub."""
    name, _, pinned = image.partition("@")
    head, slash, last = name.rpartition("/")
    last, _, tag = last.partition(":")
    registry, _, repository = f"{head}{slash}{last}".partition("/")
    if not repository or not ("." in registry or ":" in registry or registry == "localhost"):
        registry, repository = DOCKER_HUB, f"{head}{slash}{last}"
    registry = DOCKER_HUB if registry in ("docker.io", "index.docker.io") else registry
    if registry == DOCKER_HUB and "/" not in repository:
        repository = f"library/{repository}"
    return {
        "registry": registry,
        "repository": repository,
        "tag": tag or ("" if pinned else "latest"),
        "digest": pinned or digest,
        "labels": {},
    }


def file_images(config: MachineConfig) -> list[str]:
    """The images whose configs become files of a machine or of its containers."""
    files = [*(config.files or ())]
    for container in config.containers or ():
        files += container.files or ()
    return list(dict.fromkeys(file.image_config for file in files if file.image_config))


async def resolve_all(engine: Engine, config: MachineConfig) -> str:
    """Digest of a machine's image, or of its first container's; each is looked up.

    Raises:
        Problem: As in `resolve`; 400 for a file's image where there are no images.
    """
    images = [config.image] if config.image else []
    images += [container.image for container in config.containers or ()]
    wanted = file_images(config)
    if wanted and not engine.honours_image:
        raise Problem(
            400,
            f"invalid config.files, the engine {engine.name} has no images, whose config "
            "image_config could name: run the emulator with --engine docker",
        )
    images += wanted
    digests = [await resolve(engine, image) for image in images]
    return digests[0]


async def resolve(engine: Engine, image: str) -> str:
    """Digest of an image.

    Raises:
        Problem: 400, as a registry's "manifest unknown" arrives from Fly, also for other things
            that a registry says, and for its silence; 500 when the engine could not find out.
    """
    try:
        return await engine.resolve_image(image)
    except ImageNotFound:
        detail = (
            '{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown",'
            '"detail":"unknown tag"}]}'
        )
        raise Problem(
            400,
            f"failed to get manifest {image}: request failed: not found [http 404]: {detail}\n",
        ) from None
    except ImageNotPulled as error:
        raise Problem(400, f"failed to get manifest {image}: request failed: {error}") from None
    except EngineError as error:
        raise Problem(500, f"unknown: failed to resolve {image}: {error}") from None
