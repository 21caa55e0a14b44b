"""Snapshots of volumes.

Rules: https://fly.io/docs/volumes/overview/ and answers of the live API.
"""

from __future__ import annotations

import hashlib

from starlette.responses import Response

from pytest_flymachines.emulator import ids
from pytest_flymachines.emulator.answers import answer, failed_precondition
from pytest_flymachines.emulator.call import Call, Routes
from pytest_flymachines.emulator.model import Snapshot, Volume
from pytest_flymachines.emulator.volumes import (
    VOLUME,
    Source,
    changed,
    make,
    reachable,
    volume_of,
)
from pytest_flymachines.emulator.wiretime import now_ms, rfc3339

__all__ = ["routes"]

routes = Routes()

MAX_SNAPSHOTS = 100


@routes.on("GET", VOLUME + "/snapshots")
async def list_snapshots(call: Call) -> Response:
    """The snapshots of a volume, newest first."""
    shown = [
        {
            "id": snapshot.id,
            "size": snapshot.size,
            "volume_size": snapshot.volume_size,
            "digest": snapshot.digest,
            "created_at": rfc3339(snapshot.created_ms),
            "status": snapshot.status,
            "retention_days": snapshot.retention_days,
        }
        for snapshot in reversed(volume_of(call).snapshots)
    ]
    return answer(shown)


@routes.on("POST", VOLUME + "/snapshots")
async def create_snapshot(call: Call) -> Response:
    """Take a snapshot; one at a time."""
    volume = reachable(call)
    pending = next((old for old in volume.snapshots if old.status == "pending"), None)
    if pending:
        raise failed_precondition(f"snapshot is already scheduled at {rfc3339(pending.created_ms)}")
    if len(volume.snapshots) >= MAX_SNAPSHOTS:
        raise failed_precondition(f"a volume cannot have more than {MAX_SNAPSHOTS} snapshots here")
    if volume.state != "created":
        raise failed_precondition(f"unable to snapshot volume from current state: '{volume.state}'")
    snapshot = Snapshot(
        id=ids.snapshot_id(),
        size=0,
        volume_size=volume.size_gb * 1024**3,
        digest="",
        created_ms=now_ms(),
        status="pending",
        retention_days=volume.snapshot_retention,
    )
    volume.snapshots.append(snapshot)
    changed(call, volume)
    call.emulator.flyd.spawn(_take(call, volume, snapshot), f"snapshot {snapshot.id}")
    backup = {
        "id": snapshot.id,
        "app_id": str(call.app().number),
        "volume_id": volume.id,
        "state": "prepare",
        "type": "BACKUP_TYPE_ON_DEMAND",
        "created_at": rfc3339(snapshot.created_ms),
    }
    return answer({"Msg": {"backup": backup}})


async def _take(call: Call, volume: Volume, snapshot: Snapshot) -> None:
    emulator = call.emulator
    await make(call, snapshot.id, Source(volume.size_gb, volume.id, volume))
    snapshot.size = await emulator.flyd.volumes.used_bytes(snapshot.id)
    snapshot.digest = "sha256:" + hashlib.sha256(snapshot.id.encode()).hexdigest()
    snapshot.status = "created"
    emulator.store.put(volume)
    emulator.store.flush()
