"""A server to record from."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.cassettes.machine import Server
from tests.cassettes.project import Project, Runs


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Server]:
    """A server whose commands run in a directory of their own."""
    directory = tmp_path / "machine"
    directory.mkdir()
    with Server(directory) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="session")
def runs() -> Iterator[Runs]:
    """Many runs of pytest that need not import it."""
    with ExitStack() as stack:
        yield Runs(stack)


@pytest.fixture
def project(pytester: pytest.Pytester, machine: Server, tmp_path: Path, runs: Runs) -> Project:
    """An empty project with a fixture `box` that talks to the server."""
    return Project(pytester, machine, tmp_path / "shared", runs)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a recording lies that the tests of a module share, once one has made it."""
    return tmp_path_factory.mktemp("kept") / "cassettes"
