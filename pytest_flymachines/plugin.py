"""pytest's hooks and fixtures, thin: each calls something below.

Only `settings` is imported before a test asks for a sandbox or an option asks for machines.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from pytest_flymachines import settings as _settings

if TYPE_CHECKING:
    from pytest_flymachines.api import MachinesClient
    from pytest_flymachines.sandbox import Sandbox
    from pytest_flymachines.session import Session
    from pytest_flymachines.spec import SandboxSpec

SETTINGS = pytest.StashKey[_settings.Settings]()
SESSION = pytest.StashKey["Session"]()

FIXTURES = frozenset({"fly_sandbox", "fly_sandbox_factory", "fly_workspace", "fly_client"})


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the `--fly-...` options and their ini keys."""
    _settings.add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Read the settings, so that a wrong one ends the run before it starts."""
    config.addinivalue_line(
        "markers",
        "fly_sandbox(**changes): fields of SandboxSpec (image, memory_mb, repo, ...) that "
        "differ for the sandbox of this test, class or module",
    )
    config.stash[SETTINGS] = _settings.load(config)


def _session(config: pytest.Config) -> Session:
    """The run's session object; imports the machinery when first called."""
    if SESSION not in config.stash:
        from pytest_flymachines.session import Session

        config.stash[SESSION] = Session(config, config.stash[SETTINGS])
    return config.stash[SESSION]


def _wants_machines(config: pytest.Config) -> bool:
    return config.stash[SETTINGS].chosen != "replay" and not config.getoption("collectonly")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """In a run on machines, start what every worker will need."""
    if _wants_machines(session.config):
        _session(session.config).start()


def pytest_report_header(config: pytest.Config) -> str:
    """Say which mode and why."""
    chosen = config.stash[SETTINGS]
    if _wants_machines(config):
        return _session(config).header()
    return f"fly sandbox: {chosen.chosen} ({chosen.why})"


def pytest_collection_finish(session: pytest.Session) -> None:
    """Where sandbox tests were collected, get ready to record or replay them."""
    if any(FIXTURES.intersection(getattr(item, "fixturenames", ())) for item in session.items):
        _session(session.config).collected(session.items)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell an xdist worker about the run."""
    if _wants_machines(node.config):
        node.workerinput["flymachines"] = _session(node.config).worker_input()


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, object, object]:
    """Take everything down, after the last worker has ended and before the summary."""
    try:
        return (yield)
    finally:
        if SESSION in session.config.stash:
            session.config.stash[SESSION].finish(session)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was launched, kept, or could not be removed."""
    if SESSION in terminalreporter.config.stash:
        terminalreporter.config.stash[SESSION].summary(terminalreporter)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Give back connections and files."""
    if SESSION in config.stash:
        config.stash[SESSION].close()


@pytest.fixture(scope="session")
def fly_sandbox_spec(pytestconfig: pytest.Config) -> SandboxSpec:
    """The spec of `fly_sandbox`, from the settings. Override it in conftest.py."""
    return pytestconfig.stash[SETTINGS].spec()


@pytest.fixture(scope="session")
def fly_sandbox(pytestconfig: pytest.Config, fly_sandbox_spec: SandboxSpec) -> Sandbox:
    """A machine that is ready: started, repository in its workspace, agent up.

    One for all tests and workers; see `SandboxSpec` and the `--fly-...` options.
    """
    return _session(pytestconfig).run.sandbox(fly_sandbox_spec)


@pytest.fixture(scope="session")
def fly_sandbox_factory(
    pytestconfig: pytest.Config, fly_sandbox_spec: SandboxSpec
) -> Iterator[Any]:
    """`make(fresh=False, **changes) -> Sandbox`; equal specs share, `fresh=True` never does."""
    run = _session(pytestconfig).run

    def make(*, fresh: bool = False, **changes: Any) -> Sandbox:
        spec = fly_sandbox_spec.replace(**changes)
        return run.fresh_sandbox(spec) if fresh else run.sandbox(spec)

    return make  # type: ignore[return-value]


@pytest.fixture
def fly_workspace(request: pytest.FixtureRequest, fly_sandbox_spec: SandboxSpec) -> Iterator[Any]:
    """The shared machine with a private copy of the workspace as it was after the clone.

    `@pytest.mark.fly_sandbox(image=..., ...)` chooses another spec. Gone after the test.
    """
    yield from _session(request.config).workspace(request.node, fly_sandbox_spec)


@pytest.fixture(scope="session")
def fly_client(pytestconfig: pytest.Config) -> MachinesClient:
    """The Machines API client, for everything that the handle does not wrap."""
    return _session(pytestconfig).run.client
