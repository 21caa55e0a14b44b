"""`pytest-flymachines doctor`: what works on this computer, and what to do where it does not."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_flymachines.errors import ApiUnreachable, FlyMachinesError, NotFound, Unauthorized

__all__ = ["Finding", "examine"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        subject: What.
        good: Whether it works; None where it was not needed.
        detail: What was found, or what to do.
    """

    subject: str
    good: bool | None
    detail: str


def examine(token: str, apps: Sequence[str], api_url: str) -> Iterator[Finding]:
    """Look at git, the engines of local mode, and the way to Fly."""
    git = shutil.which("git")
    yield Finding(
        "git", git is not None, git or "not on PATH: install it to test a local work tree"
    )
    yield from _engines(needed=not token)
    if not token:
        yield Finding(
            "token",
            None,
            "none in FLY_API_TOKEN, FLY_ACCESS_TOKEN or FLY_TOKEN: tests run in local mode; "
            f"`fly tokens create deploy -a {apps[0]}` makes one",
        )
        return
    yield Finding("token", True, "found in the environment")
    for app in apps:
        yield _app(token, app, api_url)
    yield Finding(
        "Fly as it is",
        None,
        f"`pytest-flymachines probe --app={apps[0]}` compares the API with what is known of it, "
        "for less than a cent",
    )


def _engines(*, needed: bool) -> Iterator[Finding]:
    """Each engine is tried by really starting a machine."""
    from pytest_flymachines.emulator.engines import ENGINES
    from pytest_flymachines.emulator.extra import missing

    if why := missing():
        yield Finding("local mode", False if needed else None, why)
        return
    for name in ENGINES:
        with tempfile.TemporaryDirectory(prefix="pytest-flymachines-") as directory:
            yield asyncio.run(_engine(name, Path(directory)))


async def _engine(name: str, directory: Path) -> Finding:
    from pytest_flymachines.emulator.engines import ENGINES
    from pytest_flymachines.emulator.engines.base import EngineError

    try:
        engine = ENGINES[name](directory)
    except EngineError as error:
        return Finding(f"engine {name}", False, str(error))
    try:
        probe = await engine.probe()
    finally:
        await engine.close()
    detail = "; ".join(probe.notes) if probe.works else probe.why
    return Finding(f"engine {name}", probe.works, detail or "works")


def _app(token: str, app: str, api_url: str) -> Finding:
    from pytest_flymachines.api import MachinesClient

    subject = f"app {app} at {api_url}"
    try:
        with MachinesClient(token, base_url=api_url) as client:
            found = client.get_app(app)
            addresses = client.list_ips(app)
    except NotFound:
        return Finding(subject, False, f"does not exist: `fly apps create {app}` or --fly-org")
    except Unauthorized as error:
        return Finding(subject, False, str(error))
    except ApiUnreachable as error:
        return Finding(subject, False, f"{error}: check the network, or --fly-api-url")
    except FlyMachinesError as error:
        return Finding(subject, False, str(error))
    if not addresses:
        return Finding(
            subject,
            True,
            f"{found.status}; no public address yet, the first launch allocates a shared one",
        )
    return Finding(subject, True, str(found.status))
