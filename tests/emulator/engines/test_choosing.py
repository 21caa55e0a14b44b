"""Which engine is taken, and what is said of those that are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_flymachines.emulator.engines import ENGINES, choose
from pytest_flymachines.emulator.engines.base import EngineError

pytestmark = pytest.mark.anyio


async def test_auto_takes_the_first_that_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "pytest_flymachines.emulator.engines.computer.find_bwrap", refuse("no bwrap here")
    )
    monkeypatch.setenv("DOCKER_HOST", "unix:///no/such.sock")
    engine, probe, failed = await choose("auto", tmp_path)
    await engine.close()
    assert engine.name == "process"
    assert "no isolation" in probe.notes[0]
    assert [why.partition(":")[0] for why in failed] == ["bubblewrap", "docker"]
    assert "no bwrap here" in failed[0]
    assert "/no/such.sock" in failed[1]


async def test_named_engine_is_the_only_one_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///no/such.sock")
    with pytest.raises(EngineError, match=r"docker: .*no/such\.sock"):
        await choose("docker", tmp_path)


async def test_unknown_engine(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="'qemu': there are auto, bubblewrap, docker, process"):
        await choose("qemu", tmp_path)


async def test_bwrap_that_fails_is_told_with_what_it_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the kernel forbids user namespaces."""
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: No permissions to create a new namespace' >&2\n")
    broken.chmod(0o755)
    monkeypatch.setattr("pytest_flymachines.emulator.engines.computer.find_bwrap", lambda: broken)
    engine = ENGINES["bubblewrap"](tmp_path / "engine")
    probe = await engine.probe()
    await engine.close()
    assert not probe.works
    assert "No permissions to create a new namespace" in probe.why


def refuse(why: str) -> object:
    def find() -> Path:
        raise EngineError(why)

    return find
