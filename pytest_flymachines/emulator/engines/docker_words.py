"""What a config says, in Docker's words, and what Docker says of an image, in those of OCI."""

from __future__ import annotations

import json
import re
from typing import Any

from pytest_flymachines.emulator.engines.base import EngineError, MachineConfigForEngine, Program

__all__ = ["aliases", "command", "oci_config", "split_image"]

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


def oci_config(inspected: Any) -> bytes:
    """The config of an image.

    Source: https://github.com/opencontainers/image-spec/blob/main/config.md.

    Args:
        inspected: What the daemon says of the image.
    """
    fields = {"created": "Created", "author": "Author", "architecture": "Architecture", "os": "Os"}
    found = {key: inspected[name] for key, name in fields.items() if inspected.get(name)}
    # Docker has more fields, which say nothing of an image: those of OCI are of these names.
    names = ("User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels")
    own = {name: inspected["Config"].get(name) for name in (*names, "StopSignal")}
    found["config"] = {name: value for name, value in own.items() if value}
    layers = (inspected.get("RootFS") or {}).get("Layers") or []
    found["rootfs"] = {"type": "layers", "diff_ids": layers}
    return json.dumps(found).encode()


def split_image(image: str) -> tuple[str, str]:
    """Repository and tag, or digest, as the daemon wants them for a pull."""
    if "@" in image:
        repository, _, digest = image.partition("@")
        return repository, digest
    head, slash, last = image.rpartition("/")
    name, _, tag = last.partition(":")
    return f"{head}{slash}{name}", tag or "latest"
