"""Volumes (reference, section 11): one of 1 GB, for a minute."""

from __future__ import annotations

import time

from pytest_flymachines.probe.registry import check
from pytest_flymachines.probe.trial import Trial
from pytest_flymachines.probe.wire import Answer, CannotTell


def _create(trial: Trial, **changes: object) -> Answer:
    ground = trial.ground
    body: dict[str, object] = {"name": ground.volume_name(), "size_gb": 1, **changes}
    body.setdefault("region", ground.region or _nearest(trial))
    return ground.make(lambda: trial.send("POST", f"{ground.path}/volumes", body), "volume")


def _nearest(trial: Trial) -> str:
    answer = trial.send("GET", "/v1/platform/regions", private=True)
    return str(answer.field("Nearest") or answer.field("nearest") or "ord")


@check("create: `created`, encrypted, ext4, kept for 5 days of snapshots", "docs", "11")
def created(trial: Trial) -> None:
    answer = _create(trial)
    trial.same("status", answer.status, 200)
    trial.matches("id", answer.field("id"), "vol_[0-9a-z]{16,}")
    trial.among("state", answer.field("state"), "created", "creating")
    for name, expected in (
        ("size_gb", 1),
        ("encrypted", True),
        ("fstype", "ext4"),
        ("snapshot_retention", 5),
        ("auto_backup_enabled", True),
    ):
        trial.same(name, answer.field(name), expected)
    trial.true("attached to nothing", not answer.field("attached_machine_id"))


@check("400 or 422 for a name with capitals", "docs", "11")
def bad_name(trial: Trial) -> None:
    trial.refused(_create(trial, name="Not-Allowed"), (400, 422))


@check(
    "a volume is for one machine, outlives it, and cannot be deleted while it is held", "seen", "11"
)
def life(trial: Trial) -> None:
    answer = _create(trial)
    if answer.status != 200:
        raise CannotTell(f"no volume: {answer.status} {answer.error}")
    volume, region = str(answer.field("id")), str(answer.field("region"))
    path = f"{trial.ground.path}/volumes/{volume}"
    mounts = {"mounts": [{"volume": volume, "path": "/data"}]}
    guest = trial.make(config=mounts, region=region).ready()
    guest.output("echo kept >/data/mark")
    shown = trial.send("GET", path)
    trial.same("attached_machine_id", shown.field("attached_machine_id"), guest.id)
    trial.refused(trial.send("DELETE", path), 412, "volume is currently bound to machine")
    trial.refused(
        trial.create(config=mounts, region=region), 412, "volume already claimed", "volume"
    )
    bigger = trial.send("PUT", f"{path}/extend", {"size_gb": 2})
    trial.same("extend", (bigger.status, bigger.field("volume", "size_gb")), (200, 2))
    smaller = trial.send("PUT", f"{path}/extend", {"size_gb": 1})
    trial.true("never smaller", smaller.status >= 400, smaller.status)
    trial.note_answer("extend to a smaller size", smaller)
    trial.ok(trial.send("DELETE", guest.path, query={"force": "true"}))
    guest.wait("destroyed")
    trial.same("after the machine", trial.send("GET", path).status, 200)
    began = time.monotonic()
    deleted = trial.until(lambda: trial.send("DELETE", path).status == 200, within_s=90, every_s=2)
    trial.true("deleted in the end", deleted)
    trial.note("seconds until it could be deleted", round(time.monotonic() - began, 1))


@check("snapshots are a list", "openapi", "11")
def snapshots(trial: Trial) -> None:
    answer = _create(trial)
    path = f"{trial.ground.path}/volumes/{answer.field('id')}"
    listed = trial.send("GET", f"{path}/snapshots")
    trial.same("status", listed.status, 200)
    trial.true("a list", isinstance(listed.json, list))
    trial.note_answer("the delete of an unattached volume", trial.send("DELETE", path))
    trial.note_answer("a GET after it", trial.send("GET", path))
