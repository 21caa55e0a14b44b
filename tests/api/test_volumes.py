from __future__ import annotations

from typing import Any

import pytest

from pytest_flymachines.api import MachinesClient
from pytest_flymachines.errors import CapacityError, Conflict
from tests.api.server import Answer, ApiServer, Cut

VOLUMES = "/v1/apps/app/volumes"
ONE = f"{VOLUMES}/vol_9vw681egy1jj5xm4"


def volume(**changes: Any) -> dict[str, Any]:
    return {
        "id": "vol_9vw681egy1jj5xm4",
        "name": "data",
        "state": "created",
        "size_gb": 3,
        "region": "fra",
        "zone": "09cd",
        "encrypted": True,
        "attached_machine_id": None,
        "attached_alloc_id": None,
        "created_at": "2026-07-30T12:00:00.774Z",
        "blocks": 768250,
        "bytes_used": 0,
        "bytes_total": 3146752000,
        "fstype": "ext4",
        "snapshot_retention": 5,
        "auto_backup_enabled": True,
        **changes,
    }


def test_a_volume_is_created_with_what_is_given(client: MachinesClient, server: ApiServer) -> None:
    server.on("POST", VOLUMES, volume())
    made = client.create_volume("app", "data", region="fra")
    guest = {"cpu_kind": "shared", "cpus": 1, "memory_mb": 256}
    client.create_volume(
        "app",
        "data",
        region="fra",
        size_gb=10,
        encrypted=False,
        compute=guest,
        compute_image="debian:12",
        snapshot_retention_days=1,
        auto_backup=False,
        require_unique_zone=False,
    )
    assert (made.id, made.zone, made.attached_machine_id) == ("vol_9vw681egy1jj5xm4", "09cd", "")
    assert [request.json for request in server.requests] == [
        {"name": "data", "region": "fra", "encrypted": True},
        {
            "name": "data",
            "region": "fra",
            "size_gb": 10,
            "encrypted": False,
            "compute": guest,
            "compute_image": "debian:12",
            "snapshot_retention": 1,
            "auto_backup_enabled": False,
            "require_unique_zone": False,
        },
    ]


def test_a_creation_whose_answer_is_lost_is_not_repeated(
    client: MachinesClient, server: ApiServer
) -> None:
    """Names are not unique: the second one would be an orphan."""
    server.on("POST", VOLUMES, Cut(), volume())
    with pytest.raises(ConnectionError):
        client.create_volume("app", "data", region="fra")
    assert len(server.requests) == 1


def test_a_region_without_room_is_a_capacity_error(
    client: MachinesClient, server: ApiServer
) -> None:
    body = {"error": "could not find a candidate host", "status": "insufficient_capacity"}
    server.on("POST", VOLUMES, Answer(422, body))
    with pytest.raises(CapacityError):
        client.create_volume("app", "data", region="fra")


def test_volumes_on_their_way_out_are_not_listed_unless_asked_for(
    client: MachinesClient, server: ApiServer
) -> None:
    bodies = [volume(), volume(id="vol_2", state="pending_destroy"), volume(id="vol_3", state="x")]
    server.on("GET", VOLUMES, bodies)
    assert [v.id for v in client.list_volumes("app")] == ["vol_9vw681egy1jj5xm4", "vol_3"]
    assert len(client.list_volumes("app", include_dying=True)) == 3


def test_a_volume_is_read_and_extended(client: MachinesClient, server: ApiServer) -> None:
    server.on("GET", ONE, volume(attached_machine_id="d8d9e1b2c45678"))
    server.on("PUT", f"{ONE}/extend", {"volume": volume(size_gb=5), "needs_restart": True})
    read = client.get_volume("app", "vol_9vw681egy1jj5xm4")
    assert read.attached_machine_id == "d8d9e1b2c45678"
    extended, needs_restart = client.extend_volume("app", "vol_9vw681egy1jj5xm4", 5)
    assert (extended.size_gb, needs_restart) == (5, True)
    assert server.requests[1].json == {"size_gb": 5}


def test_a_volume_that_a_machine_holds_is_a_conflict(
    client: MachinesClient, server: ApiServer
) -> None:
    text = "failed_precondition: volume is currently bound to machine: d8d9e1b2c45678"
    server.on("DELETE", ONE, Answer(412, {"error": text}), volume(state="pending_destroy"))
    with pytest.raises(Conflict, match="bound to machine"):
        client.delete_volume("app", "vol_9vw681egy1jj5xm4")
    client.delete_volume("app", "vol_9vw681egy1jj5xm4")
