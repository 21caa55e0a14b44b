"""pytest's hooks for cassettes: whose requests are made, who passed, what was missed.

`plugin.py` registers one `CassettePlugin` in each process that runs tests. A test's cassette
is written when its teardown has passed. That of a wider fixture or of a provisioning is
written with the first test that passes and uses it (so that a run which is killed leaves what
its tests need), and again at its end if it made more requests. One such test is enough: what
other tests do with it is in their cassettes.
"""

from __future__ import annotations

import os
import shlex
import warnings
from collections.abc import Generator, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest

from pytest_flymachines.cassettes.keys import CassetteKey
from pytest_flymachines.cassettes.misses import CassetteMissing
from pytest_flymachines.cassettes.owners import fixture_keys, repeated_key, test_key
from pytest_flymachines.cassettes.recorder import Recorder
from pytest_flymachines.cassettes.scopes import Scope
from pytest_flymachines.errors import CassetteError, CassetteMiss
from pytest_flymachines.options import OPTIONS

__all__ = [
    "CassettePlugin",
    "UnusedRecording",
    "record_command",
    "rootdir_note",
]

Wrapper = Generator[None, Any, Any]
Setup = tuple[pytest.FixtureDef[Any], pytest.FixtureRequest]

# Options that say how to replay, not what to record.
_OF_A_REPLAY = frozenset({"sandbox", "mode", "record", "missing_cassette", "unused", "machine"})


class UnusedRecording(pytest.PytestWarning):
    """A cassette holds requests that nobody made."""


class CassettePlugin:
    """The hooks of one process that runs tests.

    Args:
        recorder: What the transports of this process go through.
        missing: What becomes of a test that was never recorded.
        unused: What becomes of a test that passes without making a recorded request.
    """

    def __init__(
        self,
        recorder: Recorder,
        *,
        missing: Literal["skip", "fail"] = "skip",
        unused: Literal["ignore", "warn", "fail"] = "ignore",
    ) -> None:
        self._recorder = recorder
        self._missing = missing
        self._unused = unused
        self._test: CassetteKey | None = None
        self._good = True
        self._skipped = False
        self._told: list[CassetteMiss] = []
        self._told_of_wide: list[CassetteMiss] = []
        self._ended: list[CassetteKey] = []
        self._wide_passed: set[CassetteKey] = set()
        self._names: dict[CassetteKey, str] = {}
        self._failed: list[Scope] = []
        self._unwritten: list[str] = []
        self._late: dict[pytest.FixtureDef[Any], Scope] = {}

    # whose requests they are

    def catch_up(self, item: pytest.Item, setups: Sequence[Setup]) -> None:
        """Begin in the middle of a test, which asked for a sandbox only while it ran.

        Args:
            item: The test.
            setups: The fixtures that are being set up, the outermost first.
        """
        self._begin(item)
        for fixturedef, request in setups:
            if fixturedef.scope != "function":
                self._late[fixturedef] = self._enter(fixturedef, request)

    def caught_up(self, fixturedef: pytest.FixtureDef[Any], *, failed: bool) -> None:
        """One of those fixtures has been set up."""
        if scope := self._late.pop(fixturedef, None):
            scope.broken = failed
            self._set_up(fixturedef, scope)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Wrapper:
        """Begin a test, or the next attempt at it."""
        self._begin(item)
        return (yield)

    def _begin(self, item: pytest.Item) -> None:
        if self._test is not None:
            self._recorder.scopes.leave(self._test)
        self._test = self._key(item)
        self._good, self._skipped, self._told = True, False, []
        self._recorder.scopes.enter(self._test, fresh=True)

    def _key(self, item: pytest.Item) -> CassetteKey:
        """A test's key; a repetition that was not recorded itself has that of its test."""
        key, once = test_key(item), repeated_key(item)
        if once is None or self._recorder.mode != "replay" or self._recorder.has(key):
            return key
        return once

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Wrapper:
        """Give requests in the setup and the teardown of a wider fixture to that fixture."""
        if fixturedef.scope == "function":
            return (yield)
        scope = self._enter(fixturedef, request)
        try:
            return (yield)
        except BaseException:
            scope.broken = True
            raise
        finally:
            self._set_up(fixturedef, scope)

    def _enter(self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> Scope:
        key, *around = fixture_keys(fixturedef, request)
        if self._recorder.mode == "replay" and around:
            key = next(filter(self._recorder.has, (key, *around)), key)
        if key in self._ended:
            self._end_wider(key, passed=True)
        scope = self._recorder.scopes.enter(key, fresh=True)
        self._names[key] = fixturedef.argname
        fixturedef.addfinalizer(partial(self._torn_down, key))  # runs after the fixture's own
        return scope

    def _set_up(self, fixturedef: pytest.FixtureDef[Any], scope: Scope) -> None:
        scopes = self._recorder.scopes
        scopes.leave(scope.key)
        fixturedef.addfinalizer(partial(scopes.resume, scope))  # runs before them

    def _torn_down(self, key: CassetteKey) -> None:
        self._recorder.scopes.leave(key)
        self._ended.append(key)

    # who passed

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Wrapper:
        """Tell what was missed, and after the teardown write what passed."""
        report: pytest.TestReport = yield
        if self._test is None:
            return report
        if self._recorder.mode == "replay":
            self._tell_misses(report, call, item)
        self._good = self._good and (report.passed or hasattr(report, "wasxfail"))
        if call.when == "teardown":
            try:
                self._finish(item, report)
            except CassetteError as error:
                self._unwritten.append(str(error))
            if self._unwritten:
                _fail(report, "\n\n".join(self._unwritten))
                self._unwritten.clear()
        return report

    def _finish(self, item: pytest.Item, report: pytest.TestReport) -> None:
        assert self._test is not None
        key, self._test = self._test, None
        recorder = self._recorder
        recorder.scopes.leave(key)
        try:
            if (scope := recorder.finish(key, self._good)) is not None and self._good:
                self._tell_unused(item, report, scope)
        except CassetteError as error:
            self._unwritten.append(str(error))
        if self._good and recorder.mode != "replay":
            self._save_wider(item, key)
        for wide in list(self._ended):
            finished = self._end_wider(wide, passed=report.passed)
            if finished is not None and self._good and not finished.broken:
                self._tell_unused(item, report, finished)

    def _end_wider(self, key: CassetteKey, *, passed: bool) -> Scope | None:
        """Write what a fixture's teardown asked, if the teardown passed."""
        self._ended.remove(key)
        good = key in self._wide_passed
        self._wide_passed.discard(key)
        try:
            return self._recorder.finish(key, good and passed)
        except CassetteError as error:
            self._unwritten += self._once(key, error)
            return None

    def _once(self, key: CassetteKey, error: CassetteError) -> list[str]:
        """What to tell of a cassette that many tests need; nothing if it was told in this run."""
        if self._recorder.claims.told_before(key):
            return []
        owner = f"the sandbox {key.label}" if key.kind == "sandbox" else key.label
        told = (
            f"{error}\nEvery test that uses {owner} needs that file to replay. Once this is "
            "mended, record them again with --fly-record=all. What else they need is written all "
            "the same, and this is not told again for tests that follow."
        )
        return [told]

    def _save_wider(self, item: pytest.Item, test: CassetteKey) -> None:
        """Write what a test that passed needed."""
        # also those that it asked for while it ran
        used = getattr(getattr(item, "_request", item), "fixturenames", ())
        for scope in self._recorder.scopes.all():
            key = scope.key
            needed = scope.origin == test
            if not scope.broken:
                needed = needed or key.kind == "sandbox" or self._names.get(key) in used
            if key.kind != "test" and needed:
                self._wide_passed.add(key)
                if scope in self._failed:  # it is tried again at its end
                    continue
                try:
                    self._recorder.save(scope)
                except CassetteError as error:
                    self._failed.append(scope)
                    self._unwritten += self._once(key, error)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Wrapper:
        """Write what provisionings and fixtures asked since they were written."""
        for scope in self._recorder.scopes.all():
            # a machine that came up is good for the tests of other workers, whatever ours did
            came_up = scope.key.kind == "sandbox" and not scope.broken
            try:
                self._recorder.finish(scope.key, came_up or scope.key in self._wide_passed)
            except CassetteError as error:
                for text in self._once(scope.key, error):
                    warnings.warn(text, pytest.PytestWarning, stacklevel=1)
                    session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED
        return (yield)

    # what was missed

    def _tell_misses(
        self, report: pytest.TestReport, call: pytest.CallInfo[None], item: pytest.Item
    ) -> None:
        """See to it that a miss is neither caught by the test nor told as something else."""
        if call.excinfo is None and not self._recorder.misses.any:
            return
        misses = self._misses(call)
        new = [miss for miss in misses if miss not in self._told]
        self._told += new
        self._told_of_wide += [
            miss
            for scope in self._recorder.scopes.all()
            if scope.key.kind != "test"
            for miss in scope.misses
            if miss in new
        ]
        skips = self._missing == "skip" and all(isinstance(m, CassetteMissing) for m in misses)
        # after a subtest that was skipped, the test is
        again = skips and self._skipped and call.when == "call" and report.passed
        if not (new or again):
            return
        if skips:
            self._skip(report, item, str(self._told[0]))
        elif report.failed and call.excinfo is not None:
            told = str(call.excinfo.value)
            report.sections += [("cassette miss", str(miss)) for miss in new if str(miss) != told]
        else:
            _fail(report, "\n\n".join(map(str, new)))

    def _misses(self, call: pytest.CallInfo[None]) -> list[CassetteMiss]:
        """What this test, and what it builds on, was not answered."""
        assert self._test is not None
        scopes = self._recorder.scopes.all()
        misses = [
            miss
            for scope in scopes
            if self._test in (scope.key, scope.origin) or scope.key in self._ended
            for miss in scope.misses
            if miss not in self._told_of_wide
        ]
        error = call.excinfo.value if call.excinfo is not None else None
        while error is not None:
            # a wider fixture that failed before fails every test with the same error
            if isinstance(error, CassetteMiss) and error not in misses:
                misses.append(error)
            error = error.__cause__ or error.__context__
        return misses

    def _skip(self, report: pytest.TestReport, item: pytest.Item, reason: str) -> None:
        report.__dict__.pop("wasxfail", None)
        if self._skipped and report.when != "call":
            report.outcome, report.longrepr = "passed", None
            return
        if not self._skipped:
            report.__dict__["flymachines_unrecorded"] = True  # xdist brings it to the summary
        self._skipped = True
        path, line, _ = item.location
        report.outcome = "skipped"
        report.longrepr = (path, (line or 0) + 1, f"Skipped: {reason}")

    def _tell_unused(self, item: pytest.Item, report: pytest.TestReport, scope: Scope) -> None:
        if self._unused == "ignore" or self._skipped or scope.key.kind == "sandbox":
            return
        unused = self._recorder.unused(scope)
        if not unused:
            return
        text = f"{scope.key.label}: {len(unused)} recorded request(s) were not made:\n" + "\n".join(
            f"    {line}" for line in unused
        )
        if self._unused == "fail":
            _fail(report, text)
        else:
            item.warn(UnusedRecording(text))


def record_command(config: pytest.Config, nodeid: str) -> str:
    """What to type, in the directory where pytest was started, to record a test again.

    Options of this run that make another machine, or another project, of it are kept.
    """
    file, separator, name = nodeid.partition("::")
    path = Path(os.path.relpath(config.rootpath / file, config.invocation_params.dir))
    target = [f"{path.as_posix()}{separator}{name}"] if nodeid else []
    doctest = config.getoption("doctestmodules", default=False) and "." in name.partition("[")[0]
    collects = ["--doctest-modules"] if doctest else []
    words = ["pytest", *target, *collects, *_kept_options(config), "--fly-record=all"]
    return " ".join(map(shlex.quote, words))


def rootdir_note(config: pytest.Config) -> str:
    """That the directory of the project, and so of its cassettes, is only what pytest supposes."""
    if config.inipath is not None or config.getoption("rootdir", None):
        return ""
    return (
        f"pytest found no pytest.ini or pyproject.toml of the project, and took {config.rootpath} "
        "for its directory (rootdir). With one it is the same wherever pytest is started."
    )


def _kept_options(config: pytest.Config) -> Iterator[str]:
    for option in OPTIONS:
        value = config.getoption(f"fly_{option.name}", None)
        if value is not None and option.name not in _OF_A_REPLAY:
            yield f"{option.flag}={value}"
    if ini := config.getoption("inifilename", None):
        yield f"--config-file={ini}"
    if rootdir := config.getoption("rootdir", None):
        yield f"--rootdir={rootdir}"
    for setting in config.getoption("override_ini", None) or ():
        # such as `--strict-markers`, which projects have in addopts
        if not setting.startswith("strict"):
            yield f"--override-ini={setting}"


def _fail(report: pytest.TestReport, text: str) -> None:
    """Fail what may have failed for another reason of ours, which is told before."""
    told = [report.longrepr] if report.failed and isinstance(report.longrepr, str) else []
    report.outcome = "failed"
    report.__dict__.pop("wasxfail", None)
    report.longrepr = "\n\n".join([*told, text])
