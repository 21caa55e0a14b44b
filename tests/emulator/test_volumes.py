from __future__ import annotations

from typing import Any

import pytest

from tests.emulator.conftest import App, Fly, Serve, eventually
from tests.emulator.fidelity import shows


def create(app: App, **body: Any) -> dict[str, Any]:
    made: dict[str, Any] = app.fly.ok("POST", f"{app.path}/volumes", {"name": "data", **body})
    return made


FROM_FLY_GO = {
    "region": "fra",
    "size_gb": None,
    "encrypted": None,
    "fstype": None,
    "require_unique_zone": None,
    "snapshot_retention": None,
    "auto_backup_enabled": None,
    "snapshot_id": None,
    "source_volume_id": None,
    "compute": None,
    "compute_image": "",
}


@shows("POST A/volumes", "the defaults of the documentation; null means not given", "fly-go")
@shows("GET A/volumes/{volume}", "the volume; 404 for an unknown one", "docs")
@shows("GET A/volumes", "all volumes; `summary` leaves sizes out", "openapi")
def test_volume_is_created_and_read(app: App) -> None:
    made = create(app, **FROM_FLY_GO)
    assert (made["size_gb"], made["encrypted"], made["region"]) == (3, True, "fra")
    assert (made["snapshot_retention"], made["auto_backup_enabled"]) == (5, True)
    assert (made["state"], made["attached_machine_id"]) == ("created", None)
    path = f"{app.path}/volumes"
    assert app.fly.ok("GET", f"{path}/{made['id']}")["id"] == made["id"]
    assert app.fly.ok("GET", path) == [made]
    [summary] = app.fly.ok("GET", path, params={"summary": "true"})
    assert "bytes_total" not in summary
    assert app.fly.error("GET", f"{path}/vol_0000000000000000")[0] == 404


@shows(
    "POST A/volumes", "400 for a bad name, size, retention, type of file system or region", "guess"
)
@pytest.mark.parametrize(
    "body",
    [
        {"name": "Upper"},
        {"name": ""},
        {"name": "a" * 31},
        {"size_gb": 0},
        {"size_gb": 501},
        {"snapshot_retention": 61},
        {"fstype": "zfs"},
        {"region": "xyz"},
        {"size_gb": "3"},
        {"source_volume_id": "vol_x"},
        {"snapshot_id": "vs_x"},
    ],
)
def test_bad_volumes_are_refused(app: App, body: dict[str, Any]) -> None:
    assert app.fly.error("POST", f"{app.path}/volumes", {"name": "data", **body})[0] == 400


@shows("PUT A/volumes/{volume}", "snapshot retention and automatic backups", "openapi")
@shows("PUT A/volumes/{volume}/extend", "larger, never smaller", "docs")
def test_volume_is_changed(app: App) -> None:
    path = f"{app.path}/volumes/{create(app)['id']}"
    body = {"snapshot_retention": 9, "auto_backup_enabled": False}
    shown = app.fly.ok("PUT", path, body)
    assert (shown["snapshot_retention"], shown["auto_backup_enabled"]) == (9, False)
    extended = app.fly.ok("PUT", f"{path}/extend", {"size_gb": 10})
    assert (extended["volume"]["size_gb"], extended["needs_restart"]) == (10, False)
    assert app.fly.error("PUT", f"{path}/extend", {"size_gb": 5})[0] == 400


@shows("volumes", "the mount is filled in from the volume, which also decides the region", "docs")
@shows("volumes", "content survives stop, update and the machine's destroy", "docs")
@shows(
    "DELETE A/volumes/{volume}",
    "412 while a machine holds it, and for a while after its destroy",
    "seen",
)
def test_volume_outlives_its_machine(app: App) -> None:
    volume = create(app, region="fra", size_gb=1)
    path = f"{app.path}/volumes/{volume['id']}"
    mounts = [{"volume": volume["id"], "path": "/data"}]
    machine = app.create("sleep", "inf", mounts=mounts)
    shown = machine.get()
    assert shown["region"] == "fra"
    assert shown["config"]["mounts"] == [
        {"volume": volume["id"], "path": "/data", "name": "data", "size_gb": 1, "encrypted": True}
    ]
    assert app.fly.ok("GET", path)["attached_machine_id"] == machine.id
    bound = (412, f"failed_precondition: volume is currently bound to machine: {machine.id}")
    assert app.fly.error("DELETE", path) == bound
    machine.destroy()
    assert app.fly.error("DELETE", path) == bound
    eventually(lambda: app.fly("DELETE", path).status_code == 200)
    assert app.fly.ok("GET", path)["state"] == "pending_destroy"


@shows(
    "POST A/machines", "412 on a volume that another machine holds; 400 in another region", "seen"
)
def test_volume_is_for_one_machine(app: App) -> None:
    volume = create(app, region="fra")
    mounts = [{"volume": volume["id"], "path": "/data"}]
    config = {"image": "alpine", "mounts": mounts}
    assert app.fly.error("POST", app.machines, {"region": "ord", "config": config}) == (
        400,
        f'Mounts source volume "{volume["id"]}" is in the wrong region ("fra" != "ord")',
    )
    app.create("sleep", "inf", mounts=mounts)
    assert app.fly.error("POST", app.machines, {"config": config}) == (
        412,
        "failed_precondition: volume already claimed by machine",
    )


@shows("POST M", "400 for another volume than the mounted one", "docs")
def test_update_cannot_change_the_volume(app: App) -> None:
    mounts = [{"volume": create(app)["id"], "path": "/data"}]
    machine = app.create("sleep", "inf", mounts=mounts)
    other = [{"volume": create(app)["id"], "path": "/data"}]
    for wanted in (other, []):
        body = {"config": {"image": "alpine", "mounts": wanted}}
        assert app.fly.error("POST", machine.path, body)[0] == 400
    moved = [{**mounts[0], "path": "/elsewhere"}]
    new = app.fly.ok("POST", machine.path, {"config": {"image": "alpine", "mounts": moved}})
    assert new["config"]["mounts"][0]["path"] == "/elsewhere"


@shows("POST A/volumes/{volume}/snapshots", "one at a time; `pending`, then `created`", "seen")
@shows("GET A/volumes/{volume}/snapshots", "the snapshots, newest first", "openapi")
@shows("POST A/volumes", "`source_volume_id` forks, `snapshot_id` restores", "docs")
def test_snapshots_and_forks(serve: Serve, tmp_path: Any) -> None:
    with serve("--app", "snap", "--state", str(tmp_path / "state")) as emulator:
        fly = Fly(emulator)
        app = App(fly, "snap")
        volume = create(app, size_gb=2)
        content = tmp_path / "state" / "volumes"
        (content / volume["id"] / "file").write_text("then")
        path = f"{app.path}/volumes/{volume['id']}/snapshots"
        answer = fly.ok("POST", path)
        assert answer["Msg"]["backup"]["volume_id"] == volume["id"]
        eventually(lambda: fly.ok("GET", path)[0]["status"] == "created")
        [snapshot] = fly.ok("GET", path)
        (content / volume["id"] / "file").write_text("now")
        restored = create(app, snapshot_id=snapshot["id"], size_gb=1)
        forked = create(app, source_volume_id=volume["id"])
        assert (content / restored["id"] / "file").read_text() == "then"
        assert (content / forked["id"] / "file").read_text() == "now"
        assert restored["size_gb"] == 2
        assert fly.ok("GET", f"{app.path}/volumes/{volume['id']}")["bytes_used"] > 0
        fly.ok("DELETE", f"{app.path}/volumes/{volume['id']}")
        assert not (content / volume["id"]).exists()
        assert fly.error("POST", path)[0] == 412
        fly.close()
