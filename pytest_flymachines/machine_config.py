"""The Machines API's config of a sandbox: what can travel in it does."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from pytest_flymachines.agent.bundle import build as build_agent
from pytest_flymachines.sandbox.runner import source as runner_source
from pytest_flymachines.sandbox.runner import version as runner_version
from pytest_flymachines.spec import SandboxSpec

__all__ = ["AGENT_PORT", "COOK_AGENT_PORT", "GUEST_DIR", "Identity", "machine_config"]

GUEST_DIR = "/opt/pytest-flymachines"
COOK_AGENT_PORT = 7422
# Ours always answers here, so that the public service never leads to a foreign cook-agent,
# which has no authentication.
AGENT_PORT = 7423


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Who a new machine belongs to.

    Attributes:
        name: Unique in the app while the machine lives.
        metadata: Ours, by which it is found again.
        ttl_s: Seconds after the last renewal until it ends itself.
    """

    name: str
    metadata: Mapping[str, str]
    ttl_s: int


def machine_config(
    spec: SandboxSpec,
    identity: Identity,
    *,
    agent_token: str,
    volume_id: str = "",
    files: Mapping[str, bytes] | None = None,
    mode: str = "live",
) -> dict[str, Any]:
    """The config for a create; holds no secret, only the digest of the agent's token.

    Args:
        spec: What the sandbox should be.
        identity: Who it belongs to.
        agent_token: What our agent asks for.
        volume_id: A volume to mount; empty is none.
        files: More files beside ours, by name.
        mode: Of the run. In `local` the agent comes compiled too, since the machine's Python is
            likely to be of this one's version, and the way there is short. In `replay` nobody
            reads the files, so there are none.
    """
    config: dict[str, Any] = {
        "image": spec.image,
        "guest": {"cpu_kind": spec.cpu_kind, "cpus": spec.cpus, "memory_mb": spec.memory_mb},
        "env": dict(spec.env),
        "metadata": dict(identity.metadata),
        "auto_destroy": spec.auto_destroy,
        "restart": {"policy": "no"},
        "init": {"exec": _init(spec)},
        "files": [],
    }
    if mode != "replay":
        config["files"] = _files(spec, identity, agent_token, files or {}, local=mode == "local")
    if services := _services(spec):
        config["services"] = services
    if volume_id:
        config["mounts"] = [{"volume": volume_id, "path": spec.volume_path}]
    return config


def _init(spec: SandboxSpec) -> list[str]:
    script = f'. "${{PYTEST_FLYMACHINES_ROOT:-}}{GUEST_DIR}/init.sh"'
    return ["/bin/sh", "-c", script, "init.sh", spec.workdir]


def _files(
    spec: SandboxSpec,
    identity: Identity,
    agent_token: str,
    more: Mapping[str, bytes],
    *,
    local: bool,
) -> list[dict[str, Any]]:
    contents: dict[str, bytes] = {
        path.name: path.read_bytes()
        for path in resources.files("pytest_flymachines.guest").iterdir()
        if path.name.endswith(".sh")
    }
    contents |= more
    contents["ttl"] = f"{identity.ttl_s}\n".encode()
    # for machines whose agent is off, or will turn out to have no python3
    contents[f"api/{runner_version()}.sh"] = runner_source().encode()
    if spec.agent == "off":
        contents["no-foreign"] = b"1\n"
    else:
        if spec.agent != "auto":
            contents["expect-foreign"] = b"1\n"
        contents["agent.pyz"] = build_agent(compiled=local)
        contents["agent.token.sha256"] = hashlib.sha256(agent_token.encode()).hexdigest().encode()
    return [
        {
            "guest_path": f"{GUEST_DIR}/{name}",
            "raw_value": base64.b64encode(content).decode(),
            "mode": 0o755 if name.endswith(".sh") else 0o644,
        }
        for name, content in sorted(contents.items())
    ]


def _services(spec: SandboxSpec) -> list[dict[str, Any]]:
    """Our agent on the app's https port, and each of the user's ports on its own number."""
    ports = {} if spec.agent == "off" else {AGENT_PORT: 443}
    if spec.agent_expose == "public":
        ports[COOK_AGENT_PORT] = COOK_AGENT_PORT
    ports |= {port: port for port in spec.ports}
    return [
        {
            "protocol": "tcp",
            "internal_port": inside,
            "autostop": "off",
            "autostart": False,
            "ports": [{"port": outside, "handlers": ["tls", "http"]}],
        }
        for inside, outside in ports.items()
    ]
