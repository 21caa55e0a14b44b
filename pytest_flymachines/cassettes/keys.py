"""Which cassette is whose, and the file it lives in.

A path follows from the name of its owner alone: never from what else was collected, from the
order of tests or from what lies on the disk already. So every worker, every selection with
`-k` and every computer finds the same file. Names that a file system could change or confuse
(case, length, signs) end in a digest of the whole name.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
from dataclasses import dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

import msgspec

from pytest_flymachines.cassettes.volatile import SECRET_NAME, SPEC_PLACES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_flymachines.spec import SandboxSpec

__all__ = ["BLOBS", "CassetteKey", "Kind", "safe_name", "spec_facts"]

Kind = Literal["test", "fixture", "sandbox"]

SANDBOXES = "sandboxes"
BLOBS = "blobs"
_OURS = frozenset({"session", "package", "module", "class", SANDBOXES, BLOBS})
_UNSAFE = re.compile(r"[^A-Za-z0-9_.,=+@()\[\]-]+")
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_LONGEST = 100


@dataclass(frozen=True)
class CassetteKey:
    """The owner of a cassette.

    Attributes:
        kind: What the owner is.
        label: How people call it: a test's node id, `fixture server (session)`, a spec's name.
        path: The file, relative to the directory of the cassettes.
        header: What the file says of its owner.
    """

    kind: Kind
    label: str
    path: PurePosixPath
    header: Mapping[str, object] = field(compare=False)

    @property
    def alias(self) -> str:
        """What the machine that it made is called in comparisons."""
        return str(self.path.with_suffix(""))

    @classmethod
    def test(cls, nodeid: str) -> CassetteKey:
        """A test: `<test file>/<test name>.yaml`."""
        file, _, name = nodeid.partition("::")
        head, bracket, ids = name.partition("[")
        stem = head.replace("::", ".") + bracket + ids
        path = _directory(file) / f"{safe_name(stem, nodeid)}.yaml"
        return cls("test", nodeid, path, {"test": nodeid})

    @classmethod
    def fixture(
        cls, scope: str, name: str, *, node: str = "", base: str = "", param: str = ""
    ) -> CassetteKey:
        """A fixture of wider scope: `<scope>/<node>/<fixture>.yaml`.

        Args:
            scope: `session`, `package`, `module` or `class`.
            name: Name of the fixture.
            node: Node id of what it is set up for; empty for the session.
            base: Where it is defined, when that is not the rootdir's conftest.py.
            param: Its parameter as text (see `parameters`), if it has one.
        """
        stem = f"{name}[{param}]" if param else name
        if base:
            stem += "@here" if base == node else f"@{base}"
        label = f"fixture {stem} ({scope} of {node})" if node else f"fixture {stem} ({scope})"
        folder = PurePosixPath(scope, *(safe_name(part) for part in re.split("/|::", node) if part))
        facts = {"name": name, "scope": scope, "node": node, "base": base, "param": param}
        header = {"fixture": {fact: value for fact, value in facts.items() if value}}
        return cls("fixture", label, folder / f"{safe_name(stem)}.yaml", header)

    @classmethod
    def sandbox(cls, spec: SandboxSpec, rootdir: Path | None = None) -> CassetteKey:
        """The provisioning of a spec: `sandboxes/<image>-<digest>.yaml`."""
        facts = msgspec.json.encode(spec_facts(spec, rootdir), order="deterministic")
        image = spec.image.rpartition("/")[2].partition("@")[0].replace(":", "-").lower()
        name = f"{_UNSAFE.sub('-', image)[:60]}-{_digest(facts.decode())}"
        return cls("sandbox", name, PurePosixPath(SANDBOXES, f"{name}.yaml"), {"sandbox": name})


def spec_facts(spec: SandboxSpec, rootdir: Path | None = None) -> Mapping[str, object]:
    """What makes a spec another one: its fields that are not the default.

    Where it runs is left out, so that a recording replays for a user with another app, and so
    are values of secret variables. A local path is told relative to `rootdir`.
    """
    facts: dict[str, object] = {}
    default = type(spec)()
    for each in fields(spec):
        value = getattr(spec, each.name)
        if each.name not in SPEC_PLACES and value != getattr(default, each.name):
            facts[each.name] = value
    if spec.repo is not None:
        facts["repo"] = _repo(spec.repo, rootdir)
    if spec.agent not in ("auto", "off"):
        facts["agent"] = f"program {Path(spec.agent).name}"
    if spec.env:
        facts["env"] = {k: "<secret>" if SECRET_NAME.search(k) else v for k, v in spec.env.items()}
    return facts


def _repo(repo: str, rootdir: Path | None) -> str:
    from pytest_flymachines.repository import is_local

    if not is_local(repo):
        return re.sub(r"(?<=://)[^/@]+@", "", repo)
    base = rootdir or Path.cwd()
    return PurePosixPath(os.path.relpath(base / Path(repo).expanduser(), base)).as_posix()


@functools.lru_cache(maxsize=256)
def _directory(path: str) -> PurePosixPath:
    parts = [_folder(part) for part in path.replace("\\", "/").split("/") if part not in ("", ".")]
    if parts and parts[0] in _OURS:
        parts[0] += f"-{_digest(parts[0])}"
    return PurePosixPath(*parts)


def _folder(part: str) -> str:
    """A directory; its case is that of a directory of the user's own, so it may stay."""
    safe = "up" if part == ".." else _UNSAFE.sub("-", part)[:_LONGEST]
    return safe if safe == part and not _DEVICE.fullmatch(part) else _marked(safe, part)


def safe_name(name: str, whole: str = "") -> str:
    """A file name without suffix that is the same, and a different one, everywhere.

    Args:
        name: What it should look like.
        whole: What it stands for, when `name` does not say all of it.
    """
    safe = _UNSAFE.sub("-", name)
    plain = safe == name and name == name.lower() and 0 < len(name) <= _LONGEST
    if plain and not _DEVICE.fullmatch(name):
        return name
    return _marked(safe[:_LONGEST], whole or name)


def _marked(name: str, whole: str) -> str:
    """A name with a digest; what Windows takes for a device is none without its dot."""
    if _DEVICE.fullmatch(name):
        name = name.replace(".", "-")
    return f"{name.rstrip('. ')}-{_digest(whole)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
