"""The cassettes of a process: its recorder, who owns what is requested, and what it learnt."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from pytest_flymachines.common_values import SHORTEST_NAMED, check_named
from pytest_flymachines.settings import Settings, runs_tests
from pytest_flymachines.sharing import RunInfo

if TYPE_CHECKING:
    from pytest_flymachines.cassettes import Recorder
    from pytest_flymachines.cassettes.claims import Seen
    from pytest_flymachines.cassettes.pytest_glue import CassettePlugin, Setup
    from pytest_flymachines.cassettes.recorder import Mode

__all__ = ["Recordings"]


class Recordings:
    """Everything about cassettes that one process of a run does.

    Args:
        config: Pytest's.
        settings: The settings.
        info: Gives what the processes of the run share; None in replay.
    """

    def __init__(
        self, config: pytest.Config, settings: Settings, info: Callable[[], RunInfo | None]
    ) -> None:
        self._config = config
        self._settings = settings
        self._info = info
        self._owners: CassettePlugin | None = None
        self._seen: list[Seen] = []

    @cached_property
    def recorder(self) -> Recorder:
        """This process's recorder."""
        from pytest_flymachines.cassettes import Recorder, Scrubber
        from pytest_flymachines.cassettes.pytest_glue import record_command, rootdir_note

        settings, info = self._settings, self._info()
        scrubber = Scrubber(settings.scrub, lenient=settings.record == "none")
        if info is not None and info.emulator is not None:
            scrubber.add_token("FLY_API_TOKEN", info.emulator.token)
        scrubber.add_token("FLY_API_TOKEN", settings.token)  # a controller elsewhere told it
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
            shared=_shared(info) if info else None,
            command=partial(record_command, self._config),
            note=rootdir_note(self._config),
        )

    def scrub(self, values: Iterable[str]) -> None:
        """Keep these out of every cassette.

        Raises:
            SettingsError: Something is recorded, and one of them is too short or too common.
        """
        for value in values:
            if self._settings.record != "none":
                check_named(value, value)
            self.recorder.scrubber.add("fly_scrub", value, shortest=SHORTEST_NAMED)

    # whose requests they are

    def collected(self) -> None:
        """Sandbox tests are there: from now on, know whose requests are made."""
        self._know_owners()

    def asked(self, item: pytest.Item, setups: Sequence[Setup]) -> None:
        """A sandbox is asked for, also by tests that collection did not know for sandbox tests.

        Args:
            item: The test that runs.
            setups: The fixtures that are being set up, the outermost first.
        """
        if self._owners is None and (owners := self._know_owners()):
            owners.catch_up(item, setups)

    def set_up(self, fixturedef: pytest.FixtureDef[object], *, failed: bool) -> None:
        """A fixture has been set up."""
        if self._owners is not None:
            self._owners.caught_up(fixturedef, failed=failed)

    def _know_owners(self) -> CassettePlugin | None:
        passes = self._settings.chosen != "replay" and self._settings.record == "none"
        if passes or not runs_tests(self._config):
            return None
        from pytest_flymachines.cassettes.pytest_glue import CassettePlugin

        self._owners = CassettePlugin(
            self.recorder,
            missing=self._settings.missing_cassette,
            unused=self._settings.unused,
        )
        self._config.pluginmanager.register(self._owners, "flymachines-cassettes")
        return self._owners

    # what is known at the end

    def seen(self) -> str:
        """What this process has recorded and learnt, for `hear`; empty if it records nothing."""
        if "recorder" not in self.__dict__ or self.recorder.mode not in ("once", "all"):
            return ""
        return msgspec.json.encode(self.recorder.seen()).decode()

    def hear(self, seen: str) -> None:
        """Take what a process of the run has recorded and learnt."""
        if seen:
            from pytest_flymachines.cassettes.claims import Seen

            self._seen.append(msgspec.json.decode(seen, type=Seen))

    def hear_the_dead(self) -> None:
        """Take what workers have noted that died before they could tell it."""
        info = self._info()
        if info is not None and self._settings.record != "none":
            from pytest_flymachines.cassettes.journal import take

            self._seen += take(_shared(info))

    def look_again(self, session: pytest.Session) -> None:
        """Take out of cassettes what was known for a secret only after they were written."""
        if not any(seen.learnt for seen in self._seen):
            return
        from pytest_flymachines.cassettes.hindsight import look_again

        for text in look_again(self._settings.cassettes, self._seen):
            warnings.warn(text, pytest.PytestWarning, stacklevel=1)
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED


def _shared(info: RunInfo) -> Path:
    """Where the processes of a run on one computer keep what they say of cassettes."""
    return Path(info.directory) / "cassettes"
