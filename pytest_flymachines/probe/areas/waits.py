"""`wait` (reference, section 5)."""

from __future__ import annotations

from pytest_flymachines.probe.registry import check
from pytest_flymachines.probe.trial import Trial
from pytest_flymachines.probe.wire import Answer

_RANGE = "invalid_argument: invalid WaitMachineRequest.Timeout"


def _wait(trial: Trial, path: str, **query: object) -> Answer:
    return trial.send("GET", f"{path}/wait", query=query)


@check(
    "200 at once in a state that is there already, with state, version and event", "openapi", "5"
)
def there_already(trial: Trial) -> None:
    guest = trial.guest()
    answer = _wait(trial, guest.path, state="started", timeout=30)
    trial.ok(answer)
    trial.same("state", answer.field("state"), "started")
    trial.same("version", answer.field("version"), guest.made["instance_id"])
    trial.matches("event_id", answer.field("event_id"), "[0-9A-HJKMNP-TV-Z]{26}")


@check("the state is `started` when none is given", "docs", "5")
def default_state(trial: Trial) -> None:
    trial.ok(_wait(trial, trial.guest().path, timeout=10))


@check("400 for a timeout outside of 1 to 60 seconds", "seen", "5")
def timeout_range(trial: Trial) -> None:
    for seconds in (0, 61):
        answer = _wait(trial, trial.guest().path, state="started", timeout=seconds)
        trial.refused(answer, 400, _RANGE)


@check("400 for a state that it does not know", "openapi", "5")
def unknown_state(trial: Trial) -> None:
    trial.refused(_wait(trial, trial.guest().path, state="asleep", timeout=1), 400)


@check("408 names the state that was asked for and the present one", "seen", "5")
def timeout(trial: Trial) -> None:
    answer = _wait(trial, trial.guest().path, state="suspended", timeout=2)
    text = "machine failed to reach desired state, suspended, currently started"
    trial.refused(answer, 408, text)
    trial.true("not before 1 s", answer.seconds > 1.0, round(answer.seconds, 1))


@check("`stopped` without `instance_id` is not refused any more", "fly-go", "5")
def stopped_without_version(trial: Trial) -> None:
    answer = _wait(trial, trial.guest().path, state="stopped", timeout=1)
    trial.same("status", answer.status, 408)


@check("several states, repeated or with commas; any one ends the wait", "openapi", "5")
def several_states(trial: Trial) -> None:
    path = trial.guest().path
    trial.ok(_wait(trial, path, state=["stopped", "started"], timeout=10))
    trial.ok(_wait(trial, path, state="stopped,started", timeout=10))


@check("`settled` is any state at rest", "openapi", "5")
def settled(trial: Trial) -> None:
    trial.ok(_wait(trial, trial.guest().path, state="settled", timeout=10))


@check("`from_event_id` counts only what comes after that event", "openapi", "5")
def from_event(trial: Trial) -> None:
    guest = trial.guest()
    newest = guest.events()[0]["id"]
    answer = _wait(trial, guest.path, state="started", timeout=1, from_event_id=newest)
    trial.same("status", answer.status, 408)


@check("a version that is past: the answer says `replaced`", "flyctl", "5")
def past_version(trial: Trial) -> None:
    guest = trial.make(skip_launch=True)
    guest.wait("stopped", within_s=120)
    old = guest.made["instance_id"]
    trial.same("update", guest.update(trial.ground.config(env={"B": "2"})).status, 200)
    answer = _wait(trial, guest.path, state="started", timeout=2, version=old)
    trial.true("no success", answer.status >= 400, answer.status)
    trial.contains("error", answer.error, "replaced")


@check("what a wait for `started` is answered when nothing starts the machine", "unknown", "5")
def nothing_under_way(trial: Trial) -> None:
    guest = trial.make(skip_launch=True)
    guest.wait("stopped", within_s=120)
    answer = _wait(trial, guest.path, state="started", timeout=3)
    trial.note_answer("answer", answer)
    trial.note("seconds", round(answer.seconds, 1))
