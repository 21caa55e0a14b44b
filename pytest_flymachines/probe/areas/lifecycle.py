"""Start, stop, suspend, restart of one machine (reference, sections 4 and 13)."""

from __future__ import annotations

from pytest_flymachines.probe.registry import check
from pytest_flymachines.probe.trial import Trial

_LEAVE_A_MARK = (
    "echo kept >$R/tmp/mark; (while :; do sleep 1; done) >/dev/null 2>&1 </dev/null & "
    "echo $! >$R/tmp/pid"
)


@check("destroy without force of a started machine: 412", "seen", "4.3")
def destroy_without_force(trial: Trial) -> None:
    answer = trial.send("DELETE", trial.guest().path)
    trial.refused(answer, (409, 412), "unable to destroy machine, not currently stopped")


@check("start of a started machine: 200, or refused as already started", "docs", "4.3")
def start_again(trial: Trial) -> None:
    answer = trial.guest().post("start")
    trial.among("status", answer.status, 200, 409, 412)


@check(
    "stop: SIGINT, `stopped`, an exit event that says it was requested; a second stop is fine",
    "docs",
    "4.3",
)
def stop(trial: Trial) -> None:
    guest = trial.guest()
    trial.ok(guest.post("stop", {"id": guest.id, "timeout": "0s"}))
    guest.wait("stopped")
    event = guest.last_exit()
    trial.same("requested_stop", event.get("requested_stop"), True)
    trial.same("restarting", bool(event.get("restarting")), False)
    trial.matches("exited_at", event.get("exited_at"), r"\d{4}-\d\d-\d\dT[\d:.]+Z")
    trial.note("exit_code after SIGINT", event.get("exit_code"))
    stops = [(e.get("status"), e.get("source")) for e in guest.events("stop")]
    trial.true("a `stop` event `stopping` by `user`", ("stopping", "user") in stops, stops)
    trial.ok(guest.post("stop"))


@check("exec on a stopped machine: 412 `machine not running`, and it is not woken", "seen", "6.6")
def exec_when_stopped(trial: Trial) -> None:
    guest = trial.guest()
    guest.post("stop")
    guest.wait("stopped")
    trial.refused(guest.exec("true"), 412, "machine not running")
    trial.same("state", guest.get().field("state"), "stopped")


@check("start: `previous_state`, same version, and a fresh root file system", "docs", "4.3")
def start(trial: Trial) -> None:
    guest = trial.guest()
    guest.output("echo kept >$R/root-mark; echo kept >$R/tmp/mark")
    guest.post("stop")
    guest.wait("stopped")
    answer = guest.post("start")
    trial.same("status", answer.status, 200)
    trial.same("previous_state", answer.field("previous_state"), "stopped")
    guest.ready()
    trial.same("instance_id", guest.get().field("instance_id"), guest.made["instance_id"])
    marks = guest.output("ls $R/root-mark $R/tmp/mark 2>/dev/null")
    trial.same("files of the last run", marks, "")


@check("suspend and start: memory and files are kept, the version too", "docs", "13")
def suspend(trial: Trial) -> None:
    guest = trial.guest()
    guest.output(_LEAVE_A_MARK)
    trial.ok(guest.post("suspend"))
    guest.wait("suspended")
    trial.note("events", [(e.get("status"), e.get("source")) for e in guest.events("suspend")])
    answer = guest.post("start")
    trial.same("previous_state", answer.field("previous_state"), "suspended")
    guest.ready()
    trial.same("the file", guest.output("cat $R/tmp/mark").strip(), "kept")
    alive = guest.output("kill -0 $(cat $R/tmp/pid) && echo alive").strip()
    trial.same("the process", alive, "alive")
    trial.same("instance_id", guest.get().field("instance_id"), guest.made["instance_id"])


@check("stop of a suspended machine: `stopped`", "docs", "4.2")
def stop_suspended(trial: Trial) -> None:
    guest = trial.guest()
    trial.ok(guest.post("suspend"))
    guest.wait("suspended")
    trial.ok(guest.post("stop"))
    guest.wait("stopped")
    trial.same("state", guest.get().field("state"), "stopped")


@check("restart: same version, and a fresh root file system", "docs", "4.6")
def restart(trial: Trial) -> None:
    guest = trial.guest()
    guest.output("echo kept >$R/tmp/mark")
    trial.ok(trial.send("POST", f"{guest.path}/restart", query={"timeout": 5}))
    trial.until(lambda: guest.last_exit().get("exited_at") is not None)
    guest.ready()
    trial.same("instance_id", guest.get().field("instance_id"), guest.made["instance_id"])
    gone = trial.until(lambda: guest.output("cat $R/tmp/mark 2>/dev/null") == "", within_s=20)
    trial.true("files of the last run are gone", gone)


@check("statuses and sources of events: of a restart, and of what was before", "unknown", "4.5")
def event_statuses(trial: Trial) -> None:
    guest = trial.guest()
    trial.ok(trial.send("POST", f"{guest.path}/restart"))
    trial.until(lambda: bool(guest.events("restart") and guest.events("exit")))
    guest.wait("started")
    shown = [f"{e.get('type')} {e.get('status')} {e.get('source')}" for e in guest.events()]
    trial.note("newest first", shown)


@check("400 for a signal that stop does not take", "openapi", "2.2")
def bad_stop(trial: Trial) -> None:
    trial.refused(trial.guest().post("stop", {"signal": "SIGSEGV"}), 400)
