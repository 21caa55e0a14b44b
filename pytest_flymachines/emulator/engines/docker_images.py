"""Images of a daemon."""

from __future__ import annotations

import re
from typing import Any

from docker.errors import APIError, NotFound
from docker.errors import ImageNotFound as DockerImageNotFound

from pytest_flymachines.emulator.engines.base import ImageNotPulled
from pytest_flymachines.emulator.engines.docker_words import split_image

__all__ = ["digest", "inspected"]

_REFUSAL = re.compile("unauthorized|no basic auth credentials|denied|authentication required")


def inspected(api: Any, image: str) -> Any:
    """What the daemon knows of an image, pulled if it has none of that name; blocks meanwhile.

    Raises:
        ImageNotPulled: It has none, and gets none.
        NotFound: There is no such image.
    """
    try:
        return api.inspect_image(image)
    except DockerImageNotFound:
        repository, tag = split_image(image)
    try:
        api.pull(repository, tag=tag)
    except NotFound:
        raise
    except APIError as error:
        why = f"image {image} is not on the daemon and cannot be pulled: {error.explanation}"
        if _REFUSAL.search(error.explanation or ""):
            host = repository.partition("/")[0]
            why += (
                f"; `docker login {host}` as the user that runs the emulator, or a credential "
                "helper in its config.json, lets it pull"
            )
        raise ImageNotPulled(why) from error
    return api.inspect_image(image)


def digest(found: Any, image: str) -> str:
    """Of an image, as the registry of its name has it.

    Args:
        found: What the daemon says of it.
        image: Its name.
    """
    repository = split_image(image)[0]
    named = [name.partition("@") for name in found.get("RepoDigests") or ()]
    # The same image may have another digest in another registry.
    named.sort(key=lambda parts: parts[0] != repository)
    own: str = named[0][2] if named else found["Id"]
    return own
