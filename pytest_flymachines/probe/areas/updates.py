"""Updates, and what cannot be suspended (reference, sections 4.4 and 13)."""

from __future__ import annotations

from pytest_flymachines.probe.guest import KEPT, STUBBORN
from pytest_flymachines.probe.registry import check
from pytest_flymachines.probe.trial import Trial


@check(
    "update of a started machine: new `instance_id`, the new run has the new config", "docs", "4.4"
)
def update(trial: Trial) -> None:
    guest = trial.make(config=KEPT).ready()
    config = trial.ground.config(env={"PTFM_NEW": "yes"}, **KEPT)
    answer = guest.update(config)
    trial.same("status", answer.status, 200)
    version = answer.field("instance_id")
    trial.true("another instance_id", version != guest.made["instance_id"], version)
    trial.same("config.env", answer.field("config", "env"), {"PTFM_NEW": "yes"})
    waited = trial.send(
        "GET", f"{guest.path}/wait", query={"state": "started", "timeout": 60, "version": version}
    )
    trial.ok(waited)
    guest.ready()
    trial.same("environment", guest.output("echo $PTFM_NEW").strip(), "yes")
    stale = guest.update(config, current_version=guest.made["instance_id"])
    trial.true(
        "a stale `current_version` is refused", stale.status in (400, 409, 412), stale.status
    )
    trial.note_answer("a stale `current_version`", stale)
    kinds = [f"{e.get('type')} {e.get('status')} {e.get('source')}" for e in guest.events("update")]
    trial.note("update events", kinds)


@check("409 for an update while another one is under way", "seen", "4.4")
def concurrent_update(trial: Trial) -> None:
    guest = trial.make(
        config={"init": {"exec": STUBBORN}, "stop_config": {"timeout": "4s"}, **KEPT}
    ).ready()
    config = trial.ground.config(**KEPT)
    trial.same("first", guest.update(config).status, 200)
    second = guest.update(config)
    trial.refused(second, (409, 412), "concurrent update", "replac")


@check("update of a stopped machine leaves it stopped", "seen", "4.4")
def update_stopped(trial: Trial) -> None:
    guest = trial.make(config=KEPT, skip_launch=True)
    guest.wait("stopped", within_s=120)
    answer = guest.update(trial.ground.config(env={"B": "2"}, **KEPT))
    trial.same("status", answer.status, 200)
    trial.true("another instance_id", answer.field("instance_id") != guest.made["instance_id"])
    guest.wait("stopped")
    trial.sleep(2)
    trial.same("state", guest.get().field("state"), "stopped")


@check(
    "what suspend is answered when it cannot be: stopped, with swap, with a schedule",
    "unknown",
    "13",
)
def suspend_refused(trial: Trial) -> None:
    stopped = trial.make(config=KEPT, skip_launch=True)
    stopped.wait("stopped", within_s=120)
    trial.note_answer("a stopped machine", stopped.post("suspend"))
    swapping = trial.make(
        config={"init": {"exec": ["/bin/sleep", "600"], "swap_size_mb": 256}}
    ).ready()
    trial.note_answer("a machine with swap", swapping.post("suspend"))
