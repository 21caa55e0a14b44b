"""What a config says, in Docker's words."""

from __future__ import annotations

import re
from typing import Any

from pytest_flymachines.emulator.engines.base import EngineError, MachineConfigForEngine, Program

__all__ = ["aliases", "command", "split_image"]

_NAME = re.compile(r"[a-z0-9._-]+")


def command(program: Program, image: str, config: Any) -> list[str]:
    """Its argv, or entrypoint and cmd, each from the program or else from its image."""
    if program.argv:
        return list(program.argv)
    own = (program.entrypoint, program.cmd)
    images = (config.get("Entrypoint"), config.get("Cmd"))
    argv = [w for o, i in zip(own, images, strict=True) for w in (o if o is not None else i) or ()]
    if not argv:
        raise EngineError(f"image {image} has no command, and the config gives none")
    return argv


def aliases(machine: MachineConfigForEngine) -> list[str]:
    """The machine's names, without those that no program could look up."""
    return [name for name in machine.names if len(name) < 254 and _NAME.fullmatch(name)]


def split_image(image: str) -> tuple[str, str]:
    """Repository and tag, or digest, as the daemon wants them for a pull."""
    if "@" in image:
        repository, _, digest = image.partition("@")
        return repository, digest
    head, slash, last = image.rpartition("/")
    name, _, tag = last.partition(":")
    return f"{head}{slash}{name}", tag or "latest"
