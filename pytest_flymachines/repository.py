"""What goes into the workspace: a URL to clone, or a local work tree packed as a bundle.

A local tree travels as it is: its commit, and the uncommitted and untracked-but-not-ignored
changes as one more commit that exists only in the bundle. Nothing is written to the user's
repository, and the bundle is streamed from disk.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from pytest_flymachines.errors import MachineStartFailed, SettingsError

__all__ = ["Bundle", "check_source", "credentials", "is_local", "pack"]

_HOST_TOKENS = {"github.com": ("GITHUB_TOKEN", "GH_TOKEN"), "gitlab.com": ("GITLAB_TOKEN",)}
_HEAD = "refs/heads/pytest-flymachines-head"
_SETTINGS = (
    *("-c", f"core.hooksPath={os.devnull}"),
    *("-c", "core.fsmonitor=false"),
    *("-c", "core.safecrlf=false"),
    *("-c", "column.ui=never"),
)
"""Of the user's git that would refuse, run or lay out something here."""


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A packed work tree.

    Attributes:
        path: The bundle file; gone when the context of `pack` ends.
        branch: Branch that is checked out, empty when HEAD is detached or a ref was named.
        origin: URL of the remote `origin` without credentials, empty when there is none.
        shallow: Commits whose parents are missing, space separated.
    """

    path: Path
    branch: str
    origin: str
    shallow: str

    def pieces(self) -> Iterator[bytes]:
        """What `guest/unbundle.sh` reads: three lines, then the bundle, a MiB at a time."""
        yield f"{self.branch}\n{self.origin}\n{self.shallow}\n".encode()
        with self.path.open("rb") as file:
            while piece := file.read(1 << 20):
                yield piece


def is_local(repo: str) -> bool:
    """Whether `repo` is a path of this computer rather than a URL."""
    head = repo.partition("/")[0]
    return "://" not in repo and (":" not in head or Path(repo).exists())


def check_source(repo: str, rootdir: Path) -> None:
    """Refuse what cannot be cloned, before any machine is launched.

    Raises:
        SettingsError: No such directory, no git repository, no git on this computer, or
            credentials inside the URL.
    """
    if not is_local(repo):
        if "@" in urlsplit(repo).netloc and urlsplit(repo).password:
            raise SettingsError(
                f"repo={_without_credentials(repo)!r} (credentials left out here): a URL with a "
                "password ends up in logs and in .git/config; put the token into FLY_GIT_TOKEN "
                "(and FLY_GIT_USERNAME) instead"
            )
        return
    if shutil.which("git") is None:
        raise SettingsError(f"repo={repo!r} is a local path, and no git on PATH can pack it")
    path = rootdir / Path(repo).expanduser()
    if not path.is_dir():
        raise SettingsError(
            f"repo={repo!r}: no directory {path}; expected a URL or the path of a git work tree"
        )
    try:
        _git(path, "rev-parse", "--verify", "--quiet", "HEAD")
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip()
        if "dubious ownership" in said:
            raise SettingsError(
                f"repo={repo!r}: git does not trust {path}, which belongs to another user; say "
                f"that you do: git config --global --add safe.directory {shlex.quote(str(path))}"
            ) from None
        raise SettingsError(
            f"repo={repo!r}: {path} is not a git work tree with at least one commit "
            f"({said or 'HEAD does not exist'}); make one with git init, git add and git commit"
        ) from None


def credentials(repo: str, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables for the one command that clones `repo`; empty when none are known.

    `FLY_GIT_TOKEN` with `FLY_GIT_USERNAME` (default `x-access-token`) for any https URL, else
    `GITHUB_TOKEN` or `GH_TOKEN` for github.com and `GITLAB_TOKEN` for gitlab.com.
    """
    parts = urlsplit(repo)
    if is_local(repo) or parts.scheme not in ("http", "https"):
        return {}
    names = ("FLY_GIT_TOKEN", *_HOST_TOKENS.get(parts.hostname or "", ()))
    token = next((environ[name] for name in names if environ.get(name)), "")
    if not token:
        return {}
    user = environ.get("FLY_GIT_USERNAME") or (
        "oauth2" if parts.hostname == "gitlab.com" else "x-access-token"
    )
    return {"FLY_GIT_TOKEN": token, "FLY_GIT_USERNAME": user}


@contextmanager
def pack(path: Path, *, ref: str | None, depth: int | None) -> Iterator[Bundle]:
    """Pack a local repository; without `ref`, the work tree as it is now.

    Raises:
        MachineStartFailed: git refused; the message has its output.
    """
    with tempfile.TemporaryDirectory(prefix="pytest-flymachines-") as scratch:
        try:
            yield _pack(path, Path(scratch), ref, depth)
        except subprocess.CalledProcessError as error:
            raise MachineStartFailed(
                f"packing {path} failed: {_shown(error.cmd)} ended with "
                f"{error.returncode}:\n{error.stderr.strip()}"
            ) from None


def _pack(path: Path, scratch: Path, ref: str | None, depth: int | None) -> Bundle:
    packed = scratch / "packed.git"
    head = _git(path, "rev-parse", "--verify", f"{ref or 'HEAD'}^{{commit}}")
    _scratch_repository(path, packed, head, depth)
    _git(packed, "update-ref", _HEAD, head)
    if ref is None and (changed := _work_tree_commit(path, packed, head)):
        _git(packed, "update-ref", "refs/worktree/now", changed)
    for tag in _git(path, "tag", "--merged", head).splitlines():
        if depth is None:
            _git(
                packed,
                "update-ref",
                f"refs/tags/{tag}",
                _git(path, "rev-parse", f"refs/tags/{tag}"),
            )
    bundle = scratch / "repo.bundle"
    _git(packed, "bundle", "create", "--quiet", str(bundle), "--all")
    shallow = packed / "shallow"
    return Bundle(
        path=bundle,
        branch="" if ref else _ok(path, "symbolic-ref", "--quiet", "--short", "HEAD"),
        origin=_origin(path),
        shallow=" ".join(shallow.read_text("ascii").split()) if shallow.exists() else "",
    )


def _scratch_repository(path: Path, packed: Path, head: str, depth: int | None) -> None:
    """An empty bare repository that sees the objects of `path`, cut at `depth` commits."""
    packed.parent.mkdir(exist_ok=True)
    kind = _git(path, "rev-parse", "--show-object-format")
    of_kind = [f"--object-format={kind}"] if kind.isalnum() else []  # git before 2.29 has one
    _git(packed.parent, "init", "--quiet", "--bare", "--template=", *of_kind, str(packed))
    common = path / _git(path, "rev-parse", "--git-common-dir")
    alternates = packed / "objects" / "info" / "alternates"
    alternates.parent.mkdir(exist_ok=True)
    alternates.write_bytes(os.fsencode((common / "objects").resolve()) + b"\n")
    cut: list[str] = []
    if (common / "shallow").exists():
        cut += (common / "shallow").read_text("ascii").split()
    if depth is not None:
        kept = set(_git(path, "rev-list", f"--max-count={depth}", "--first-parent", head).split())
        cut += [c for c in kept if set(_git(path, "rev-parse", f"{c}^@").split()) - kept]
    if cut:
        (packed / "shallow").write_text("".join(f"{commit}\n" for commit in sorted(set(cut))))


def _work_tree_commit(path: Path, packed: Path, head: str) -> str:
    """A commit of the tree with its uncommitted changes, in `packed` only; empty if clean."""
    index = packed / "work-tree-index"
    original = path / _git(path, "rev-parse", "--git-path", "index")
    if original.exists():
        shutil.copy2(original, index)
    common = (path / _git(path, "rev-parse", "--git-common-dir")).resolve()
    env = {
        "GIT_INDEX_FILE": str(index),
        "GIT_OBJECT_DIRECTORY": str(packed / "objects"),
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(common / "objects"),
        "GIT_AUTHOR_NAME": "pytest-flymachines",
        "GIT_AUTHOR_EMAIL": "pytest-flymachines@localhost",
        "GIT_COMMITTER_NAME": "pytest-flymachines",
        "GIT_COMMITTER_EMAIL": "pytest-flymachines@localhost",
    }
    top = Path(_git(path, "rev-parse", "--show-toplevel"))
    _git(top, "add", "--all", ".", env=env)
    tree = _git(top, "write-tree", env=env)
    if tree == _git(path, "rev-parse", f"{head}^{{tree}}"):
        return ""
    return _git(top, "commit-tree", "-m", "work tree", "-p", head, tree, env=env)


def _origin(path: Path) -> str:
    url = _ok(path, "config", "--get", "remote.origin.url")
    return "" if not url or is_local(url) else _without_credentials(url)


def _without_credentials(url: str) -> str:
    parts = urlsplit(url)
    if not parts.scheme or "@" not in parts.netloc:
        return url
    user = parts.username if parts.scheme == "ssh" else None
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{user}@{host}" if user else host))


def _git(path: Path, *args: str, env: Mapping[str, str] | None = None) -> str:
    """Stdout of git, stripped; raises `CalledProcessError` with its stderr.

    A hook of git, from which tests may be run, has variables that mean another repository. Those
    of settings stay: continuous integration says there that it trusts a directory.
    """
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_") or name.startswith("GIT_CONFIG_")
    }
    done = subprocess.run(
        ["git", *_SETTINGS, *args],
        cwd=path,
        env=clean | {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"} | dict(env or {}),
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return done.stdout.strip()


def _shown(command: Sequence[str]) -> str:
    """As one would type it."""
    return " ".join(["git", *command[1 + len(_SETTINGS) :]])


def _ok(path: Path, *args: str) -> str:
    """As `_git`, with empty text for a failure."""
    try:
        return _git(path, *args)
    except subprocess.CalledProcessError:
        return ""
