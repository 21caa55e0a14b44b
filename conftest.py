"""For the whole suite."""

import gc
import os
import re
import signal
import tempfile
from collections.abc import Iterator

import pytest

pytest_plugins = ["pytester"]

# Under nohup, or behind a script's `&`, these are ignored, and so they would be in every process
# that the tests start.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

#: Settings of whoever runs the tests that would reach into the runs inside them. Those of the
#: first line make pytest print more in its summary, or in colours: what it prints is looked at.
#: Users' own clients follow the proxies, and most servers of the tests are on loopback.
OTHERS = (
    *("CI", "BUILD_NUMBER", "FORCE_COLOR", "PY_COLORS", "NO_COLOR", "COLUMNS"),
    *(f"{scheme}_proxy" for scheme in ("http", "https", "all", "no", "ftp")),
    *("PYTHONUTF8", "PYTHONIOENCODING", "PYTHONWARNINGS", "PYTHONOPTIMIZE"),
    *("MYPYPATH", "HYPOTHESIS_STORAGE_DIRECTORY", "DOCKER_HOST", "DOCKER_CONTEXT"),
)
#: ... and all that begin so: tokens and apps, options of pytest, a repository that git is to use.
OTHERS_BEGIN = ("FLY_", "COOK_", "PYTEST_FLYMACHINES_", "PYTEST_ADDOPTS", "GIT_", "LC_", "LANG")

#: Sockets, whose path may have 107 bytes, and programs without quotes are in temporary directories.
if not re.fullmatch(r"[\w./+-]{1,40}", tempfile.gettempdir(), re.ASCII):
    os.environ["TMPDIR"] = tempfile.tempdir = "/tmp"  # noqa: S108

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
def nobodys_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the tests and the runs in them find depends on no setting of whoever runs them.

    Git is left with one setting: the checkout may be used also where somebody else owns it.
    """
    config = tmp_path_factory.mktemp("git") / "config"
    config.write_text("[safe]\n\tdirectory = *\n")
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.lower() in OTHERS or name in OTHERS or name.startswith(OTHERS_BEGIN):
                patch.delenv(name)
        patch.setenv("LANG", "C.UTF-8")
        patch.setenv("GIT_CONFIG_GLOBAL", str(config))
        patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
        yield
