"""pytest's hooks and fixtures, thin: each calls something below.

Only `settings` is imported before a test asks for a sandbox or an option asks for machines.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any, Unpack

import pytest

from pytest_flymachines import settings as _settings

if TYPE_CHECKING:
    from pytest_flymachines.api import MachinesClient
    from pytest_flymachines.run import Run
    from pytest_flymachines.sandbox import Sandbox, SandboxFactory
    from pytest_flymachines.session import Session
    from pytest_flymachines.spec import SandboxSpec, SpecChanges

SETTINGS = pytest.StashKey[_settings.Settings]()
SESSION = pytest.StashKey["Session"]()
SCRUBBED = pytest.StashKey[bool]()
#: The test that runs, and the fixtures that are being set up.
UNDERWAY = pytest.StashKey[tuple[pytest.Item, list[Any]]]()

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


def _uses_sandbox(item: pytest.Item) -> bool:
    return bool(FIXTURES.intersection(getattr(item, "fixturenames", ())))


def _wants_machines(config: pytest.Config) -> bool:
    return config.stash[SETTINGS].chosen != "replay" and _settings.runs_tests(config)


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
    if any(_uses_sandbox(item) for item in session.items):
        _session(session.config).recordings.collected()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell an xdist worker about the run."""
    spec = node.gateway.spec
    remote = not spec.popen or bool(spec.via)
    if remote:
        node.workerinput["flymachines_environment"] = _settings.environment_for_workers(
            node.config.stash[SETTINGS]
        )
    if _wants_machines(node.config):
        node.workerinput["flymachines"] = _session(node.config).worker_input(remote=remote)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Hear from an xdist worker what it recorded, and on another computer launched."""
    if SESSION in node.config.stash:
        node.config.stash[SESSION].worker_output(getattr(node, "workeroutput", {}))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show failures as users need them, and let fixtures that are torn down know of them."""
    if SESSION not in item.config.stash:
        return (yield)
    session = item.config.stash[SESSION]
    with session.shown(item, call):
        report = yield
    session.reported(item, report)
    if report.failed and call.excinfo is not None:
        session.explain(report, call.excinfo.value)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_exception_interact(
    node: pytest.Item | pytest.Collector, call: pytest.CallInfo[Any]
) -> Generator[None, object, object]:
    """Let `--pdb` stop at the line of the test, not within this package."""
    if SESSION not in node.config.stash:
        return (yield)
    with node.config.stash[SESSION].shown(node, call):
        return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Notice a machine that died, before another test fails on it."""
    item.config.stash[UNDERWAY] = (item, [])
    if SESSION in item.config.stash and _uses_sandbox(item):
        item.config.stash[SESSION].before()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Take what is named beside this test for secret, too: the machine may be set up long since."""
    if SESSION in item.config.stash and _uses_sandbox(item) and isinstance(item, pytest.Function):
        beside = item.parent.stash if item.parent is not None else item.stash
        if beside.get(SCRUBBED, False):  # the same for all that stand there
            return
        request = item._request  # noqa: SLF001 (there is no other way to a test's own)
        item.config.stash[SESSION].recordings.scrub(request.getfixturevalue("fly_scrub"))
        beside[SCRUBBED] = True


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """End what the test left running in its sandboxes."""
    if SESSION in item.config.stash:
        item.config.stash[SESSION].end_started(item)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    """Let processes that a wider fixture starts live as long as the fixture."""
    stash, failed = request.config.stash, True
    _, setups = stash.get(UNDERWAY, (None, []))
    setups.append((fixturedef, request))
    try:
        result = yield
        failed = False
        return result
    finally:
        setups.pop()
        if SESSION in stash:
            stash[SESSION].fixture_started(fixturedef, failed=failed)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, object, object]:
    """Take everything down, after the last worker has ended and before the summary."""
    ours = session.config.stash.get(SESSION, None)
    if ours is None:
        return (yield)
    try:
        ours.interrupted(session)
        try:
            return (yield)
        finally:
            ours.finish(session)
    except KeyboardInterrupt:
        ours.leave()
        raise


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was launched, kept, or could not be removed, and what was never recorded."""
    skipped = terminalreporter.stats.get("skipped", ())
    if unrecorded := sum(hasattr(report, "flymachines_unrecorded") for report in skipped):
        terminalreporter.write_line(
            f"fly sandbox: skipped {unrecorded} test(s) that were never recorded; -rs says more, "
            "--fly-missing-cassette=fail fails them"
        )
    if SESSION in terminalreporter.config.stash:
        terminalreporter.config.stash[SESSION].summary(terminalreporter)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Give back connections and files."""
    if SESSION in config.stash:
        config.stash[SESSION].close()


@pytest.fixture(scope="session")
def fly_sandbox_spec(request: pytest.FixtureRequest) -> SandboxSpec:
    """The spec of `fly_sandbox`, from the settings. Override it in conftest.py."""
    return request.config.stash[SETTINGS].spec()


@pytest.fixture(scope="session")
def fly_scrub() -> list[str]:
    """Secret values that never go into a cassette. Override it in conftest.py."""
    return []


def _run(request: pytest.FixtureRequest) -> Run:
    """This process's run; no fixture, because pytest looks at each of those again in every test."""
    session = _session(request.config)
    session.recordings.asked(*request.config.stash[UNDERWAY])
    session.recordings.scrub(request.getfixturevalue("fly_scrub"))
    return session.run


@pytest.fixture(scope="session")
def fly_sandbox(request: pytest.FixtureRequest, fly_sandbox_spec: SandboxSpec) -> Sandbox:
    """A machine that is ready: started, repository in its workspace, agent up.

    One for all tests and workers; see `SandboxSpec` and the `--fly-...` options.
    """
    return _run(request).sandbox(fly_sandbox_spec)


@pytest.fixture(scope="session")
def fly_sandbox_factory(
    request: pytest.FixtureRequest, fly_sandbox_spec: SandboxSpec
) -> SandboxFactory:
    """`make(fresh=False, **changes) -> Sandbox`; equal specs share, `fresh=True` never does."""
    run = _run(request)

    def make(*, fresh: bool = False, **changes: Unpack[SpecChanges]) -> Sandbox:
        spec = fly_sandbox_spec.replace(**changes)
        return run.fresh_sandbox(spec) if fresh else run.sandbox(spec)

    return make


@pytest.fixture
def fly_workspace(
    request: pytest.FixtureRequest, fly_sandbox_spec: SandboxSpec
) -> Iterator[Sandbox]:
    """The shared machine with a private copy of the workspace as it was after the clone.

    `@pytest.mark.fly_sandbox(image=..., ...)` chooses another spec. Gone after the test.
    """
    _run(request)
    yield from _session(request.config).workspace(request.node, fly_sandbox_spec)


@pytest.fixture(scope="session")
def fly_client(request: pytest.FixtureRequest) -> MachinesClient:
    """The Machines API client, for everything that the handle does not wrap."""
    return _run(request).client
