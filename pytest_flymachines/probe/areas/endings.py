"""How machines end: signals, exit codes, policies, destroy (reference, sections 4.5 to 4.9)."""

from __future__ import annotations

import time

from pytest_flymachines.probe.guest import KEPT, STUBBORN
from pytest_flymachines.probe.registry import check
from pytest_flymachines.probe.trial import Trial

_NOTES_SIGNALS = """
R=${PYTEST_FLYMACHINES_ROOT:-}
mkdir -p $R/tmp
trap 'echo usr1 >>$R/tmp/signals' USR1
trap 'echo usr2 >>$R/tmp/signals' USR2
touch $R/tmp/trapped
while :; do sleep 1; done
"""


@check("signal by name, and by number as fly-go sends it; 400 for an unknown one", "fly-go", "2.2")
def signals(trial: Trial) -> None:
    guest = trial.make(config={"init": {"exec": ["/bin/sh", "-c", _NOTES_SIGNALS]}}).ready()
    trial.until(lambda: "yes" in guest.output("test -e $R/tmp/trapped && echo yes"))
    trial.ok(guest.post("signal", {"signal": "SIGUSR1"}))
    trial.ok(guest.post("signal", {"signal": 12}))

    def written() -> str:
        return guest.output("sort -u $R/tmp/signals 2>/dev/null")

    both = trial.until(lambda: written().split() == ["usr1", "usr2"])
    trial.true("both arrived", both, written().split())
    trial.refused(guest.post("signal", {"signal": "SIGNONE"}), 400)


@check("a stop that is not heard: start is refused meanwhile, SIGKILL ends it", "seen", "4.3")
def stubborn(trial: Trial) -> None:
    guest = trial.make(config={"init": {"exec": STUBBORN}, **KEPT}).ready()
    began = time.monotonic()
    trial.ok(guest.post("stop", {"timeout": "4s"}))
    answer = guest.post("start")
    trial.refused(answer, (409, 412), "still active", "unable to start", "still attempting")
    guest.wait("stopped")
    trial.true(
        "after its timeout", time.monotonic() - began > 3, round(time.monotonic() - began, 1)
    )
    trial.same("requested_stop", guest.last_exit().get("requested_stop"), True)
    trial.note("exit event", {k: v for k, v in guest.last_exit().items() if k != "exited_at"})


@check(
    "the exit code of the main process is in the exit event; policy `no` leaves it stopped",
    "docs",
    "4.6",
)
def exit_code(trial: Trial) -> None:
    config = {"init": {"exec": ["/bin/sh", "-c", "sleep 1; exit 7"]}, **KEPT}
    guest = trial.make(config=config)
    trial.until(lambda: bool(guest.events("exit")), within_s=120)
    guest.wait("stopped")
    event = guest.last_exit()
    trial.same("exit_code", event.get("exit_code"), 7)
    trial.same("requested_stop", bool(event.get("requested_stop")), False)
    trial.same("oom_killed", bool(event.get("oom_killed")), False)


@check("`on-failure` restarts after exit code 3, and gives up after `max_retries`", "docs", "4.6")
def on_failure(trial: Trial) -> None:
    config = {
        "init": {"exec": ["/bin/sh", "-c", "sleep 1; exit 3"]},
        "restart": {"policy": "on-failure", "max_retries": 1},
        **KEPT,
    }
    guest = trial.make(config=config)
    trial.until(lambda: len(guest.events("exit")) >= 2, within_s=150, every_s=1)
    guest.wait("stopped")
    exits = guest.events("exit")
    flags = [bool((e.get("request") or {}).get("exit_event", {}).get("restarting")) for e in exits]
    trial.same("restarting, newest first", flags, [False, True])


@check("with `auto_destroy` and policy `no` an API stop destroys the machine", "seen", "4.7")
def auto_destroy(trial: Trial) -> None:
    guest = trial.make().ready()
    trial.ok(guest.post("stop"))
    guest.wait("destroyed")
    trial.true(
        "gone",
        guest.get().status == 404 or guest.get().field("state") in ("destroying", "destroyed"),
    )


@check('destroy with `force`: `{"ok":true}`, then `destroyed`, in the end 404', "seen", "4.3")
def destroy(trial: Trial) -> None:
    guest = trial.make().ready()
    trial.ok(trial.send("DELETE", guest.path, query={"force": "true"}))
    guest.wait("destroyed")
    trial.refused(guest.post("start"), (404, 412))


@check("how long a destroyed machine can be read, and in which states", "unknown", "4.3")
def destroyed_readable(trial: Trial) -> None:
    guest = trial.make(skip_launch=True)
    guest.wait("stopped", within_s=120)
    trial.send("DELETE", guest.path, query={"force": "true"})
    began = time.monotonic()
    states: list[str] = []
    kinds: list[str] = []

    def gone() -> bool:
        answer = guest.get()
        events = [e for e in answer.field("events") or [] if e.get("type") == "destroy"]
        seen = [f"{e.get('status')} by {e.get('source')}" for e in events]
        kinds.extend(kind for kind in seen if kind not in kinds)
        state = str(answer.field("state")) if answer.status == 200 else str(answer.status)
        if state not in states:
            states.append(state)
        return answer.status == 404

    over = trial.until(gone, within_s=60, every_s=1)
    trial.note("states", states)
    trial.note("events", kinds)
    trial.note("seconds until 404", round(time.monotonic() - began, 1) if over else "> 60")


@check("a main process that cannot be started: what becomes of the machine", "unknown", "4.9")
def bad_program(trial: Trial) -> None:
    guest = trial.make(config={"init": {"exec": ["/there/is/no/such/program"]}, **KEPT})
    trial.until(lambda: guest.get().field("state") in ("stopped", "failed"), within_s=60, every_s=1)
    trial.note("state", guest.get().field("state"))
    trial.note("exit event", {k: v for k, v in guest.last_exit().items() if k != "exited_at"})
