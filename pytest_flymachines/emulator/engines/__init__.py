"""Engines: the ways in which the emulator can run a machine on this computer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pytest_flymachines.emulator.engines.base import Engine, EngineError, Probe

__all__ = ["ENGINES", "choose"]


def _bubblewrap(directory: Path) -> Engine:
    from pytest_flymachines.emulator.engines.bubblewrap import BubblewrapEngine

    return BubblewrapEngine(directory)


def _docker(directory: Path) -> Engine:
    try:
        from pytest_flymachines.emulator.engines.docker import DockerEngine
    except ImportError as error:
        raise EngineError(
            f"{error}: pip install 'pytest-flymachines[docker]' for the docker engine"
        ) from error
    return DockerEngine(directory)


def _process(directory: Path) -> Engine:
    from pytest_flymachines.emulator.engines.process import ProcessEngine

    return ProcessEngine(directory)


# Imported when first used: the supervisors import this package too, and need none of them.
ENGINES: dict[str, Callable[[Path], Engine]] = {
    "bubblewrap": _bubblewrap,
    "docker": _docker,
    "process": _process,
}
"""Engines by name, the most faithful that needs nothing first; each takes its directory."""


async def choose(name: str, directory: Path) -> tuple[Engine, Probe, list[str]]:
    """The first engine that really starts a machine here, or the one that is named.

    Args:
        name: `auto` or a key of `ENGINES`.
        directory: Private directory for what all machines of the engine share.

    Returns:
        The engine, its probe, and for each one that came before it why it cannot be used.

    Raises:
        EngineError: None works, or the named one does not; with the reasons.
    """
    if name != "auto" and name not in ENGINES:
        raise EngineError(f"engine {name!r}: there are auto, {', '.join(ENGINES)}")
    failed: list[str] = []
    for candidate in ENGINES if name == "auto" else [name]:
        try:
            engine = ENGINES[candidate](directory / candidate)
        except EngineError as error:
            failed.append(f"{candidate}: {error}")
            continue
        probe = await engine.probe()
        if probe.works:
            return engine, probe, failed
        failed.append(f"{candidate}: {probe.why}")
        await engine.close()
    raise EngineError("no engine can run machines on this computer:\n" + "\n".join(failed))
