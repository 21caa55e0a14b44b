"""`SandboxSpec`: what a sandbox should be. Equal specs share one machine."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypedDict

from pytest_flymachines.errors import SettingsError

__all__ = ["SandboxSpec", "SpecChanges"]

DEFAULT_IMAGE = "ghcr.io/justinmoon/cook-sandbox:latest"

_MEMORY_PER_CPU_MB = {"shared": (256, 2048), "performance": (2048, 8192)}
_CPUS = {"shared": (1, 2, 4, 6, 8), "performance": (1, 2, 4, 6, 8, 10, 12, 14, 16)}


@dataclass(frozen=True, kw_only=True)
class SandboxSpec:
    """What a sandbox should be.

    Sizes and regions are Fly's (https://fly.io/docs/machines/guides-examples/machine-sizing/).

    Attributes:
        app: Fly app that the machine belongs to.
        org: Organization in which a missing app is made; None never makes one.
        regions: Region codes, tried in turn.
        image: Any OCI image.
        cpu_kind: `shared` or `performance`.
        cpus: 1, 2, 4, 6 or 8 (shared); 1 or an even number up to 16 (performance).
        memory_mb: 256 to 2048 per shared cpu, 2048 to 8192 per performance cpu, in steps of 256.
        repo: URL or local path to clone into the workspace; None leaves it empty.
        ref: Branch, tag or commit to check out; None takes the default branch (or, for a
            local path, the work tree as it is).
        depth: Commits of history to fetch; None fetches all.
        submodules: Fetch submodules too.
        agent: `auto`, `off`, or the path of a cook-agent program.
        agent_expose: `token` (only our agent, which asks for its per-run token) or `public`
            (allow an agent without authentication on the public port).
        volume_gb: Size of an encrypted volume that lives as long as the machine; 0 is none.
        volume_path: Where the volume is mounted.
        env: Variables of every process in the machine.
        ports: Ports in the machine that `url()` may reach from outside, besides the agent's.
        workdir: Directory of the workspace in the machine.
        auto_destroy: A machine that stops is destroyed; `stop()` needs False.
        setup: Shell commands run in the workspace after the clone, each must succeed.
    """

    app: str = "cook-sandbox"
    org: str | None = None
    regions: tuple[str, ...] = ("ord",)
    image: str = DEFAULT_IMAGE
    cpu_kind: str = "shared"
    cpus: int = 1
    memory_mb: int = 1024
    repo: str | None = None
    ref: str | None = None
    depth: int | None = None
    submodules: bool = False
    agent: str = "auto"
    agent_expose: str = "token"
    volume_gb: int = 0
    volume_path: str = "/data"
    env: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[int, ...] = ()
    workdir: str = "/workspace"
    auto_destroy: bool = True
    setup: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "env", dict(sorted(self.env.items())))
        for name in ("regions", "ports", "setup"):
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(value))
        _check(self)

    def __hash__(self) -> int:
        return hash(self.key)

    def replace(self, **changes: Any) -> SandboxSpec:
        """This spec with some fields changed.

        Raises:
            SettingsError: A field does not exist (the message names the nearest one), or a
                value is not accepted.
        """
        known = [f.name for f in fields(self)]
        for name in changes:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise SettingsError(
                    f"SandboxSpec has no field {name!r}{hint} (fields: {', '.join(known)})"
                )
        return dataclasses.replace(self, **changes)

    @property
    def key(self) -> str:
        """Twelve hex digits that equal specs share; part of the machine's name."""
        return self._digest(without=())

    @property
    def cassette_key(self) -> str:
        """The same without where it runs, so that live and local recordings are one."""
        return self._digest(without=("app", "org", "regions"))

    def _digest(self, without: tuple[str, ...]) -> str:
        data = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in without}
        text = json.dumps(data, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


class SpecChanges(TypedDict, total=False):
    """Some of the fields of a `SandboxSpec`, so that an editor completes them."""

    app: str
    org: str | None
    regions: tuple[str, ...]
    image: str
    cpu_kind: str
    cpus: int
    memory_mb: int
    repo: str | None
    ref: str | None
    depth: int | None
    submodules: bool
    agent: str
    agent_expose: str
    volume_gb: int
    volume_path: str
    env: Mapping[str, str]
    ports: tuple[int, ...]
    workdir: str
    auto_destroy: bool
    setup: tuple[str, ...]


def _check(spec: SandboxSpec) -> None:
    """Raise for what Fly, or we, would refuse later with a worse message."""

    def refuse(name: str, accepted: str) -> None:
        raise SettingsError(f"{name}={getattr(spec, name)!r}: expected {accepted}")

    if spec.cpu_kind not in _CPUS:
        refuse("cpu_kind", "shared or performance")
    if spec.cpus not in _CPUS[spec.cpu_kind]:
        refuse("cpus", f"one of {', '.join(map(str, _CPUS[spec.cpu_kind]))} for {spec.cpu_kind}")
    least, most = (n * spec.cpus for n in _MEMORY_PER_CPU_MB[spec.cpu_kind])
    if not least <= spec.memory_mb <= most or spec.memory_mb % 256:
        refuse(
            "memory_mb",
            f"a multiple of 256 from {least} to {most} for {spec.cpus} {spec.cpu_kind} cpu(s)",
        )
    if not spec.regions or not all(
        r.isascii() and r.replace("-", "").isalnum() for r in spec.regions
    ):
        refuse("regions", "one or more region codes such as ord")
    if not re.fullmatch("[a-z0-9-]{1,63}", spec.app):
        refuse("app", "at most 63 characters of a-z, 0-9 and -")
    if not spec.image or any(c.isspace() for c in spec.image):
        refuse("image", "an OCI image reference such as debian:12")
    if spec.depth is not None and spec.depth < 1:
        refuse("depth", "a number of commits from 1")
    if not 0 <= spec.volume_gb <= 500:
        refuse("volume_gb", "0 (none) to 500")
    if spec.agent_expose not in ("token", "public"):
        refuse("agent_expose", "token or public")
    for name in ("volume_path", "workdir"):
        if not getattr(spec, name).startswith("/"):
            refuse(name, "an absolute path in the machine")
    for port in spec.ports:
        if not 1 <= port <= 65535:
            refuse("ports", "ports from 1 to 65535")
    for key, value in spec.env.items():
        if not key or "=" in key or "\0" in key + value:
            refuse("env", "names without '=' and NUL, values without NUL")
