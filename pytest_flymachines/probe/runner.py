"""All checks, an area a thread; whatever ends them, what was made is destroyed."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from pytest_flymachines.errors import FlyMachinesError
from pytest_flymachines.probe.ground import Closed, Ground
from pytest_flymachines.probe.registry import Check
from pytest_flymachines.probe.report import Outcome, Report
from pytest_flymachines.probe.trial import Site, Trial
from pytest_flymachines.probe.wire import CannotTell

__all__ = ["Runner"]

#: Areas that are worked on at once; each has a machine of its own.
THREADS = 6


class Runner:
    """One probe.

    Args:
        ground: Where.
        checks: Which.
        told: Called with each outcome, in the main thread.
    """

    def __init__(
        self, ground: Ground, checks: Sequence[Check], told: Callable[[Outcome], None]
    ) -> None:
        self._ground = ground
        self._checks = checks
        self._told = told
        self._stopping = threading.Event()
        self._outcomes: queue.Queue[Outcome] = queue.Queue()
        self.report = Report(
            server=ground.client.base_url,
            started=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def run(self) -> None:
        """Carry out every check; outcomes are in `report`, also when it is cut short.

        Raises:
            KeyboardInterrupt: Or whatever else cuts it short. `finish` is still to be called.
        """
        began = time.monotonic()
        areas = Counter(check.area for check in self._checks)
        waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
        # what takes longest first
        for area in sorted(areas, key=lambda area: (area != "patience", -areas[area])):
            waiting.put(area)
        threads = [
            threading.Thread(target=self._work, args=(waiting,), name="probe", daemon=True)
            for _ in range(min(THREADS, len(areas)))
        ]
        try:
            for thread in threads:
                thread.start()
            for _ in self._checks:
                outcome = self._outcomes.get()
                self.report.outcomes.append(outcome)
                self._told(outcome)
            for thread in threads:
                thread.join()
        finally:
            self.report.seconds = time.monotonic() - began

    def finish(self, progress: Callable[[str], None]) -> None:
        """End what still runs, take everything away, and complete the report."""
        self._stopping.set()
        while not self._outcomes.empty():
            self.report.outcomes.append(self._outcomes.get())
        self.report.left = self._ground.clear(progress)
        self.report.machines = self._ground.machines_made
        self.report.advice = self._ground.hopeless
        done = {outcome.check.name: outcome for outcome in self.report.outcomes}
        cut = "the probe was ended before"
        self.report.outcomes = [
            done.get(check.name) or Outcome(check, "not run", cut) for check in self._checks
        ]

    def _work(self, waiting: queue.SimpleQueue[str]) -> None:
        while True:
            try:
                area = waiting.get_nowait()
            except queue.Empty:
                return
            site = Site(self._ground, self._stopping)
            for check in self._checks:
                if check.area == area:
                    self._outcomes.put(self._try(check, site))
            self._clean_up(site.made)

    def _try(self, check: Check, site: Site) -> Outcome:
        """One outcome; what is not as expected is looked at twice, because networks hiccup."""
        if why := self._unfit(check):
            return Outcome(check, "not run", why)
        outcome = self._once(check, site)
        if outcome.verdict in ("differs", "not run") and not self._stopping.is_set():
            # An answer that was lost may have changed the machine.
            site.guest = None
            outcome = self._once(check, site)
        return outcome

    def _once(self, check: Check, site: Site) -> Outcome:
        trial = Trial(site)
        why = ""
        try:
            check.body(trial)
        except CannotTell as error:
            why = str(error)
        except FlyMachinesError as error:
            why = f"{type(error).__name__}: {error}"
        except Closed:
            why = "the probe was ended meanwhile"
        except Exception as error:  # noqa: BLE001 - an answer that no check was written for
            place = traceback.extract_tb(error.__traceback__)[-1]
            why = f"{type(error).__name__}: {error} ({place.name}, line {place.lineno})"
        self._clean_up(trial.made)
        verdict = _verdict(check, trial, why)
        compared, notes, exchanges = trial.comparisons, trial.notes, trial.exchanges
        return Outcome(check, verdict, why, compared, notes, exchanges)

    def _clean_up(self, machines: Sequence[str]) -> None:
        """Destroy what is not needed any more; what cannot be now, the end of the probe does."""
        for machine_id in machines:
            if not self._stopping.is_set():
                with contextlib.suppress(Exception):
                    self._ground.destroy(machine_id)

    def _unfit(self, check: Check) -> str:
        """Why this check has no place on this server."""
        if check.own_app and not self._ground.own:
            return "it changes the app itself: give --org, so that the probe makes one of its own"
        if check.images and self._ground.emulated:
            return "this emulator's engine may have no registry of images"
        return ""


def _verdict(check: Check, trial: Trial, why: str) -> str:
    """A difference counts, also when the check then came to its end too early."""
    if not all(item.holds for item in trial.comparisons):
        return "differs"
    if why:
        return "not run"
    return "recorded" if check.source == "unknown" else "same"
