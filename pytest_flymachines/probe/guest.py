"""A machine that the probe made, as its checks use it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pytest_flymachines.probe.wire import Answer, CannotTell

if TYPE_CHECKING:
    from pytest_flymachines.probe.trial import Trial

__all__ = ["KEPT", "STUBBORN", "Guest"]

#: A config's part: stopping does not destroy.
KEPT: dict[str, Any] = {"auto_destroy": False}
#: A main process that does not end when it is asked to.
STUBBORN = ["/bin/sh", "-c", 'trap "" INT TERM; while :; do sleep 1; done']

# an emulator's engine without walls keeps a machine's files below a directory
_ROOT = "R=${PYTEST_FLYMACHINES_ROOT:-}; mkdir -p $R/tmp"
_START_S = 180.0


class Guest:
    """A machine that the probe made."""

    def __init__(self, trial: Trial, answer: Answer) -> None:
        self._trial = trial
        self.answer = answer
        self.made: dict[str, Any] = answer.json
        self.id = str(self.made["id"])
        self.path = f"{trial.machines}/{self.id}"

    def to(self, trial: Trial) -> Guest:
        """The same machine in another check."""
        return Guest(trial, self.answer)

    def get(self) -> Answer:
        """The machine as it is now."""
        return self._trial.send("GET", self.path)

    def post(self, action: str, body: Any = None, **options: Any) -> Answer:
        """An action on the machine."""
        return self._trial.send("POST", f"{self.path}/{action}", body, **options)

    def exec(self, *command: str, **fields: Any) -> Answer:
        """Run a command; while the guest's server is not up yet, again."""
        body = ({"command": list(command)} if command else {}) | fields
        return self.post("exec", body)

    def output(self, script: str) -> str:
        """What a shell script writes; `$R` is the root directory of the machine's files.

        Raises:
            CannotTell: It could not be run.
        """
        answer = self.exec("/bin/sh", "-c", f"{_ROOT}\n{script}")
        if answer.status != 200:
            raise CannotTell(f"exec answered {answer.status}: {answer.error}")
        return str(answer.field("stdout") or "")

    def wait(self, state: str, *, within_s: float = 60.0) -> None:
        """Wait for a state, by looking: the wait of the API is itself on trial.

        Raises:
            CannotTell: It was not reached in time.
        """

        def reached() -> bool:
            shown = self.get()
            now = "destroyed" if shown.status == 404 else shown.field("state")
            return now == state or (state == "destroyed" and now == "destroying")

        if not self._trial.until(reached, within_s=within_s):
            raise CannotTell(f"machine {self.id} did not reach {state} within {within_s:.0f} s")

    def ready(self, *, within_s: float = _START_S) -> Guest:
        """Wait until it has started and takes commands."""
        self.wait("started", within_s=within_s)
        if not self._trial.until(lambda: self.exec("/bin/true").status == 200, within_s=30.0):
            raise CannotTell(f"machine {self.id} has started, but takes no command")
        return self

    def events(self, kind: str = "") -> list[dict[str, Any]]:
        """Its events of one type, newest first."""
        shown = self._trial.send("GET", f"{self.path}/events", query={"limit": 50}).json
        events = shown if isinstance(shown, list) else []
        return [event for event in events if kind in ("", event.get("type"))]

    def last_exit(self) -> dict[str, Any]:
        """What its newest exit event says; fly-go knows of a second place for it."""
        events = self.events("exit")
        request = events[0].get("request") or {} if events else {}
        found = (request.get("MonitorEvent") or request).get("exit_event") or {}
        return {**found, "restart_count": request.get("restart_count")}

    def update(self, config: Mapping[str, Any], **fields: Any) -> Answer:
        """Replace its config."""
        return self._trial.send("POST", self.path, {"config": dict(config), **fields})
