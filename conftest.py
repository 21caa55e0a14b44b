"""For the whole suite."""

import gc
import signal
from collections.abc import Iterator

import pytest

pytest_plugins = ["pytester"]

# Under nohup, or behind a script's `&`, these are ignored, and so they would be in every process
# that the tests start.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

#: What makes pytest print more in its summary, or in colours: the runs in the tests are looked at.
PRINTING = ("CI", "BUILD_NUMBER", "FORCE_COLOR", "PY_COLORS", "NO_COLOR", "COLUMNS")

#: Files that take long, or whose tests do; a worker that begins one late would end alone.
LONG = (
    *("tests/e2e/test_kill_matrix.py", "tests/e2e/test_fault", "tests/e2e/"),
    *("tests/cassettes/test_sandbox_replay.py", "tests/cassettes/test_pytest_glue.py"),
    *("tests/cassettes/test_cli.py", "tests/probe/", "tests/sandbox/", "tests/emulator/engines/"),
    *("tests/emulator/test_bounds.py", "tests/cassettes/"),
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take long first."""

    def place(item: pytest.Item) -> int:
        found = (number for number, start in enumerate(LONG) if item.nodeid.startswith(start))
        return next(found, len(LONG))

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """What is there now stays, so that the collections of garbage in tests need not look at it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def prints_the_same_everywhere() -> Iterator[None]:
    """What the runs in the tests print depends on no setting of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in PRINTING:
            patch.delenv(name, raising=False)
        yield
