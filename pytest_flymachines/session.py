"""A pytest session with sandboxes: the plugin's hooks, in a controller and in its workers."""

from __future__ import annotations

import secrets
import signal
import threading
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from pytest_flymachines.settings import Settings
from pytest_flymachines.sharing import RunInfo

if TYPE_CHECKING:
    from pytest_flymachines.cassettes import Recorder
    from pytest_flymachines.cassettes.recorder import Mode
    from pytest_flymachines.controller import Controller, Outcome
    from pytest_flymachines.run import Run
    from pytest_flymachines.sandbox import Sandbox
    from pytest_flymachines.sandbox.attachment import Started
    from pytest_flymachines.spec import SandboxSpec

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
        self._recorder: Recorder | None = None
        self._outcome: Outcome | None = None
        self._signals: list[int] = []

    @property
    def _is_worker(self) -> bool:
        return self._worker_input is not None

    # --- controller ---------------------------------------------------------------------

    def start(self) -> None:
        """In the controller of a run on machines: emulator, run id, directory, signals."""
        if self._is_worker or self._controller is not None:
            return
        from pytest_flymachines.controller import Controller

        base = self._config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]  # noqa: SLF001
        self._controller = Controller(self._settings, base / f"fly-{secrets.token_hex(6)}")
        self._end_on_signals()

    def header(self) -> str:
        """The line of `pytest_report_header`."""
        self.start()
        line = f"fly sandbox: {self._settings.chosen} ({self._settings.why})"
        return f"{line}, {self._controller.describe()}" if self._controller else line

    def worker_input(self) -> str:
        """What `pytest_configure_node` sends to a worker."""
        self.start()
        assert self._controller is not None
        return msgspec.json.encode(self._controller.info).decode()

    def _end_on_signals(self) -> None:
        """A cancelled CI job (SIGTERM) and a closed terminal (SIGHUP) take machines down too."""

        def end(number: int, _: FrameType | None) -> None:
            pytest.exit(f"received {signal.Signals(number).name}", returncode=128 + number)

        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) is signal.SIG_DFL:
                    signal.signal(number, end)
                    self._signals.append(number)

    def finish(self, session: pytest.Session) -> None:
        """At the end of the session; takes down what the run made, in its controller."""
        if self._controller is None:
            return
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")

        def progress(text: str) -> None:
            if reporter is not None:
                reporter.ensure_newline()
                reporter.write_line(f"fly sandbox: {text}")

        failed = session.exitstatus != pytest.ExitCode.OK or session.testsfailed > 0
        try:
            self._outcome = self._controller.finish(failed=failed, progress=progress)
        except KeyboardInterrupt:
            progress(
                "interrupted while taking machines down: what is left ends itself within "
                f"{self._settings.ttl} s; `pytest-flymachines reap` does it now"
            )
            raise

    def summary(self, reporter: pytest.TerminalReporter) -> None:
        """What was kept, and what could not be removed."""
        if self._outcome is None:
            return
        for title, lines in (("kept", self._outcome.kept), ("LEFT BEHIND", self._outcome.left)):
            if lines:
                reporter.section(f"fly sandbox: {title}", yellow=True)
                for line in lines:
                    reporter.write_line(line)

    # --- every process that runs tests --------------------------------------------------

    @property
    def run(self) -> Run:
        """This process's run; made when a test first asks for it."""
        if self._run is None:
            self._run = self._make_run()
        return self._run

    def _make_run(self) -> Run:
        from pytest_flymachines.run import build

        return build(self._settings, self._info(), self._worker_name(), self.recorder)

    @property
    def recorder(self) -> Recorder:
        """This process's recorder."""
        if self._recorder is None:
            self._recorder = self._make_recorder(self._info())
        return self._recorder

    def _make_recorder(self, info: RunInfo | None) -> Recorder:
        from pytest_flymachines.cassettes import Recorder, Scrubber
        from pytest_flymachines.cassettes.pytest_glue import record_command

        settings = self._settings
        scrubber = Scrubber(settings.scrub)
        if info is not None and info.emulator is not None:
            scrubber.add_token("FLY_API_TOKEN", info.emulator.token)
        mode: Mode = "off"
        if info is None:
            mode = "replay"
        elif settings.record != "none":
            mode = settings.record
        return Recorder(
            settings.cassettes,
            mode=mode,
            source=settings.chosen,
            run_id=info.run_id if info else "",
            scrubber=scrubber,
            rootdir=settings.rootdir,
            shared=Path(info.directory) / "cassettes" if info else None,
            command=partial(record_command, self._config),
        )

    def collected(self) -> None:
        """Sandbox tests are there: from now on, know whose requests are made."""
        if self._settings.chosen != "replay" and self._settings.record == "none":
            return
        if self._config.getoption("collectonly"):
            return
        from pytest_flymachines.cassettes.pytest_glue import CassettePlugin

        plugin = CassettePlugin(
            self.recorder,
            missing=self._settings.missing_cassette,
            unused=self._settings.unused,
        )
        self._config.pluginmanager.register(plugin, "flymachines-cassettes")

    def scrub(self, values: Iterable[str]) -> None:
        """Keep these out of every cassette."""
        for value in values:
            self.recorder.scrubber.add("fly_scrub", value, shortest=1)

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
        return msgspec.json.decode(self._worker_input["flymachines"], type=RunInfo)

    def workspace(self, item: pytest.Item, spec: SandboxSpec) -> Iterator[Sandbox]:
        """A private workspace for one test, on the machine that its marker asks for."""
        for marker in item.iter_markers("fly_sandbox"):
            spec = spec.replace(**marker.kwargs)
        yield from self.run.workspace(spec, failed=lambda: _failed(item))

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

    def end_started(self, item: pytest.Item) -> None:
        """End the processes and terminals that a test left running."""
        for started in item.stash.get(STARTED, ()):
            started.end()

    def fixture_started(self, fixturedef: pytest.FixtureDef[object]) -> None:
        """What the setup of a wider fixture started ends with the fixture, not with the test."""
        if self._run is not None and fixturedef.scope != "function":
            for started in self._run.take_started():
                fixturedef.addfinalizer(started.end)

    def close(self) -> None:
        """Give back connections and signal handlers."""
        for number in self._signals:
            signal.signal(number, signal.SIG_DFL)
        if self._run is not None:
            self._run.close()


def _failed(item: pytest.Item) -> bool:
    """Whether the test has failed so far; `plugin.py` keeps its reports."""
    return any(report.failed for report in item.stash.get(REPORTS, ()))
