"""A pytest session with sandboxes: the plugin's hooks, in a controller and in its workers."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec
import pytest
from msgspec import structs

from pytest_flymachines.errors import CassetteMiss, SettingsError
from pytest_flymachines.progress import Progress, Relay, silent, write_to
from pytest_flymachines.recordings import Recordings
from pytest_flymachines.report import Repeated, may_be_lost, progress_of, write_summary
from pytest_flymachines.settings import Settings
from pytest_flymachines.sharing import EmulatorAddress, Intent, RunInfo, SharedState
from pytest_flymachines.signals import EndSignals
from pytest_flymachines.tracebacks import without_inside

if TYPE_CHECKING:
    from pytest_flymachines.controller import Controller
    from pytest_flymachines.run import Run
    from pytest_flymachines.sandbox import Sandbox
    from pytest_flymachines.sandbox.attachment import Started
    from pytest_flymachines.spec import SandboxSpec
    from pytest_flymachines.teardown import Outcome

__all__ = ["REPORTS", "Session"]

REPORTS = pytest.StashKey[list[pytest.TestReport]]()
STARTED: pytest.StashKey[list[Started]] = pytest.StashKey()


class Session:
    """What the hooks of one process call.

    Args:
        config: pytest's; a worker's has `workerinput`.
        settings: What the user asked for.
    """

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self._config = config
        self._settings = settings
        self._worker_input: dict[str, Any] | None = getattr(config, "workerinput", None)
        self._controller: Controller | None = None
        self._run: Run | None = None
        self._outcome: Outcome | None = None
        self._signals: EndSignals | None = None
        self._relay: Relay | None = None
        self._left = False
        self._repeated = Repeated()

    @property
    def _is_worker(self) -> bool:
        return self._worker_input is not None

    # --- controller ---------------------------------------------------------------------

    def start(self) -> None:
        """In the controller of a run on machines: emulator, run id, directory, signals."""
        if self._is_worker or self._controller is not None:
            return
        from pytest_flymachines.controller import Controller

        self._controller = Controller(
            self._settings, self._base_temp() / f"fly-{secrets.token_hex(6)}"
        )
        self._signals = EndSignals()
        if self._config.pluginmanager.hasplugin("dsession"):
            told = _told(self._controller.info.directory)
            self._relay = Relay(told, progress_of(self._config))

    def header(self) -> str:
        """The line of `pytest_report_header`."""
        self.start()
        line = f"fly sandbox: {self._settings.chosen} ({self._settings.why})"
        return f"{line}, {self._controller.describe()}" if self._controller else line

    def worker_input(self, *, remote: bool) -> str:
        """What `pytest_configure_node` sends to a worker, here or on another computer."""
        self.start()
        assert self._controller is not None
        info = self._controller.info
        if remote:
            self._controller.remote_workers = True
            info = structs.replace(info, directory="")
        return msgspec.json.encode(info).decode()

    def worker_output(self, output: Mapping[str, str]) -> None:
        """Take what a worker has noted, when it has ended."""
        if self._controller is not None and "flymachines" in output:
            self._controller.learn(msgspec.json.decode(output["flymachines"], type=list[Intent]))
        self.recordings.hear(output.get("flymachines_recorded", ""))

    def interrupted(self, session: pytest.Session) -> None:
        """When a signal or Ctrl-C ends the session: do not wait for workers to take down.

        Without workers there is nothing to wait for, and fixtures may still use their machine.
        """
        if self._controller is None or self._signals is None:
            return
        self._signals.ending = True
        stopped = session.shouldstop or session.shouldfail
        by_user = session.exitstatus == pytest.ExitCode.INTERRUPTED and not stopped
        if self._config.pluginmanager.hasplugin("dsession") and (by_user or self._signals.received):
            self._controller.interrupt(progress_of(self._config))

    def finish(self, session: pytest.Session) -> None:
        """At the end of the session; takes down what the run made, in its controller."""
        if self._is_worker:
            self._tell_controller()
        else:
            self.recordings.hear_the_dead()
        try:
            self._take_down(session)
        finally:
            seen = self.recordings.seen()
            if self._is_worker:
                self._config.workeroutput["flymachines_recorded"] = seen  # type: ignore[attr-defined]  # xdist's
            else:
                self.recordings.hear(seen)
                self.recordings.look_again(session)

    def _take_down(self, session: pytest.Session) -> None:
        if self._controller is None or self._left:
            return
        assert self._signals is not None
        self._signals.ending = True
        if self._relay is not None:
            self._relay.close()
        failed = session.exitstatus != pytest.ExitCode.OK or session.testsfailed > 0
        self._outcome = self._controller.finish(
            failed=failed, progress=progress_of(self._config), hurry=bool(self._signals.received)
        )

    def _tell_controller(self) -> None:
        """From a worker on another computer: what was launched; its directory is of no more use."""
        info = self._info()
        if info is None or not self._is_elsewhere:
            return
        state = SharedState(Path(info.directory))
        noted = msgspec.json.encode(state.intents()).decode()
        self._config.workeroutput["flymachines"] = noted  # type: ignore[attr-defined]  # xdist's
        shutil.rmtree(state.directory, ignore_errors=True)

    def leave(self) -> None:
        """After a second Ctrl-C: leave machines to their deadline, and say so."""
        if self._controller is None:
            return
        self._left = True
        raise pytest.exit.Exception(
            "interrupted while taking machines down: what is left ends itself within "
            f"{self._settings.ttl} s; `pytest-flymachines reap --run "
            f"{self._controller.info.run_id}` does it now",
            returncode=130,
        )

    def summary(self, reporter: pytest.TerminalReporter) -> None:
        """What was used, kept, and could not be removed."""
        if self._outcome is not None and self._controller is not None:
            write_summary(reporter, self._outcome, self._controller.swept)

    # --- every process that runs tests --------------------------------------------------

    @property
    def run(self) -> Run:
        """This process's run; made when a test first asks for it."""
        if self._run is None:
            info = self._info()
            if info is not None and info.emulator is not None and self._is_elsewhere:
                _check_reachable(info.emulator)
            with self._turn_to_import(info):
                from pytest_flymachines.run import build

                self._run = build(
                    self._settings,
                    info,
                    self._worker_name(),
                    self.recordings.recorder,
                    self._progress(info),
                )
        return self._run

    def _progress(self, info: RunInfo | None) -> Progress:
        """Tells of launches; a worker on another computer is not heard before it has ended."""
        if info is None or self._is_elsewhere:
            return silent
        return write_to(_told(info.directory)) if self._is_worker else progress_of(self._config)

    def _turn_to_import(self, info: RunInfo | None) -> AbstractContextManager[object]:
        """Where workers outnumber the cpus, let some import first, so that a launch begins early.

        They ask for their sandbox all at once, and what that needs takes long to import.
        """
        number = self._worker_name().removeprefix("gw")
        if info is None or self._is_elsewhere or not number.isdecimal():
            return nullcontext()
        from filelock import FileLock

        turn = int(number) % max(1, (os.cpu_count() or 1) - 1)
        return FileLock(Path(info.directory) / f"import-{turn}.lock")

    @cached_property
    def recordings(self) -> Recordings:
        """This process's cassettes."""
        return Recordings(self._config, self._settings, self._info)

    def _worker_name(self) -> str:
        return str(self._worker_input["workerid"]) if self._worker_input else "main"

    def _info(self) -> RunInfo | None:
        """What the controller said; None in replay, where nothing is shared."""
        if self._settings.chosen == "replay":
            return None
        if self._worker_input is None:
            self.start()
            assert self._controller is not None
            return self._controller.info
        info = self._told_info()
        return info if info.directory else structs.replace(info, directory=self._own_directory)

    @property
    def _is_elsewhere(self) -> bool:
        """A worker on another computer than its controller."""
        return self._is_worker and not self._told_info().directory

    def _told_info(self) -> RunInfo:
        assert self._worker_input is not None
        return msgspec.json.decode(self._worker_input["flymachines"], type=RunInfo)

    @cached_property
    def _own_directory(self) -> str:
        """Of a worker on another computer, which shares none with the controller."""
        return str(self._base_temp() / f"fly-{secrets.token_hex(6)}")

    def _base_temp(self) -> Path:
        base: Path = self._config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]  # noqa: SLF001
        return base

    def workspace(self, item: pytest.Item, spec: SandboxSpec) -> Iterator[Sandbox]:
        """A private workspace for one test, on the machine that its marker asks for."""
        for marker in item.iter_markers("fly_sandbox"):
            spec = spec.replace(**marker.kwargs)
        yield from self.run.workspace(spec, failed=lambda: _failed(item))

    def before(self) -> None:
        """Before a test that uses a sandbox: notice what became of the machines."""
        if self._run is not None:
            self._run.refresh()

    @contextmanager
    def shown(
        self, item: pytest.Item | pytest.Collector, call: pytest.CallInfo[Any]
    ) -> Iterator[None]:
        """While a failure is made a report, or debugged: leave the inside of this package out."""
        waiting = getattr(item, "_excinfo", None) or ()  # of a unittest.TestCase
        found = [one for one in (call.excinfo, *waiting) if one is not None]
        if self._config.getoption("fulltrace"):
            found = []
        with without_inside(*(one.value for one in found)):
            for one in found:
                one.traceback = type(one.traceback)(one.tb)  # which may have been read before
            yield

    def explain(self, report: pytest.TestReport, error: BaseException) -> None:
        """Say in the report of a failure when a machine's end is behind it."""
        if not self._config.getoption("fulltrace"):
            self._repeated.shorten(report, error)
        if self._run is not None and may_be_lost(error):
            report.sections += [("fly sandbox", told) for told in self._run.check_alive()]

    def reported(self, item: pytest.Item, report: pytest.TestReport) -> None:
        """Keep the reports of a test for its fixtures' teardown; show what it had running."""
        item.stash.setdefault(REPORTS, []).append(report)
        if self._run is None:
            return
        if report.when != "teardown":
            item.stash.setdefault(STARTED, []).extend(self._run.take_started())
        if report.failed:
            report.sections += [
                ("fly sandbox process", started.transcript())
                for started in item.stash.get(STARTED, ())
            ]
            report.sections += [
                ("fly sandbox workspace", told) for told in self._run.kept_workspaces()
            ]

    def end_started(self, item: pytest.Item) -> None:
        """End the processes and terminals that a test left running."""
        for started in item.stash.get(STARTED, ()):
            with suppress(CassetteMiss):  # the test's report tells of it, as of all misses
                started.end()

    def fixture_started(self, fixturedef: pytest.FixtureDef[object], *, failed: bool) -> None:
        """What the setup of a wider fixture started ends with the fixture, not with the test."""
        self.recordings.set_up(fixturedef, failed=failed)
        if self._run is not None and fixturedef.scope != "function":
            for started in self._run.take_started():
                fixturedef.addfinalizer(started.end)

    def close(self) -> None:
        """Give back connections and signal handlers."""
        if self._signals is not None:
            self._signals.restore()
        if self._relay is not None:
            self._relay.close()
        if self._run is not None:
            self._run.close()


def _check_reachable(emulator: EmulatorAddress) -> None:
    """In a worker on another computer: see whether local mode can work at all."""
    address = urlsplit(emulator.api_url)
    try:
        socket.create_connection((address.hostname, address.port), timeout=5).close()
    except OSError as error:
        raise SettingsError(
            f"--fly-mode=local: this worker, on {socket.gethostname()}, cannot reach the emulator "
            f"at {emulator.api_url} ({error}), which listens on the controller's loopback alone; "
            "workers on other computers need --fly-mode=live"
        ) from None


def _told(directory: str) -> Path:
    """Where workers write what the controller shows."""
    return Path(directory) / "progress"


def _failed(item: pytest.Item) -> bool:
    """Whether the test has failed so far; `plugin.py` keeps its reports."""
    return any(report.failed for report in item.stash.get(REPORTS, ()))
