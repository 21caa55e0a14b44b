"""Volumes: files that outlive machines, and their snapshots.

Rules: https://fly.io/docs/volumes/overview/ and answers of the live API.
"""

from __future__ import annotations

import re
import secrets
from typing import NamedTuple

from msgspec import Struct
from starlette.responses import Response

from pytest_flymachines.emulator import ids
from pytest_flymachines.emulator.answers import Problem, answer, failed_precondition
from pytest_flymachines.emulator.call import APP, Call, Routes, boolean
from pytest_flymachines.emulator.config import Guest, MachineConfig
from pytest_flymachines.emulator.emulator import Emulator
from pytest_flymachines.emulator.engines.base import EngineError, RunningMachine
from pytest_flymachines.emulator.model import Machine, Volume
from pytest_flymachines.emulator.regions import choose_region
from pytest_flymachines.emulator.render import volume_json
from pytest_flymachines.emulator.validate import check_guest
from pytest_flymachines.emulator.wiretime import now_ms

__all__ = [
    "VOLUME",
    "Source",
    "changed",
    "claim",
    "make",
    "mount",
    "reachable",
    "routes",
    "volume_of",
]

routes = Routes()

VOLUMES = APP + "/volumes"
VOLUME = VOLUMES + "/{volume}"
NAME = re.compile(r"^[a-z0-9_]{1,30}$")
MAX_SIZE_GB = 500
MAX_VOLUMES = 1000


class CreateVolume(Struct):
    """Body of create; fly-go sends every key, null where unset."""

    name: str = ""
    region: str = ""
    size_gb: int = 3
    encrypted: bool = True
    fstype: str = "ext4"
    require_unique_zone: bool = True
    unique_zone_app_wide: bool = False
    snapshot_retention: int = 5
    auto_backup_enabled: bool = True
    snapshot_id: str = ""
    source_volume_id: str = ""
    compute: Guest | None = None
    compute_image: str = ""


class UpdateVolume(Struct):
    """Body of update."""

    snapshot_retention: int | None = None
    auto_backup_enabled: bool | None = None


class ExtendVolume(Struct):
    """Body of extend."""

    size_gb: int = 0


def mount(emulator: Emulator, app: str, config: MachineConfig) -> Volume | None:
    """Fill a config's mount in from its volume, which may be given by id or name.

    Raises:
        Problem: 400 when there is no such volume in the app.
    """
    if not config.mounts:
        return None
    wanted = config.mounts[0]
    volume = next(
        (
            volume
            for volume in emulator.store.volumes_of(app)
            if volume.state == "created" and wanted.volume in (volume.id, volume.name)
        ),
        None,
    )
    if volume is None:
        raise Problem(400, f"invalid config.mounts[0].volume, volume {wanted.volume} not found")
    wanted.volume, wanted.name = volume.id, volume.name
    wanted.size_gb, wanted.encrypted = volume.size_gb, volume.encrypted
    return volume


def claim(emulator: Emulator, machine: Machine, asked_region: str) -> None:
    """Bind a new machine to the volume of its mount, which also decides its region.

    Raises:
        Problem: 412 when another machine has it, 400 when it lies in another region.
    """
    volume = mount(emulator, machine.app, machine.config)
    if volume is None:
        return
    if volume.region != machine.region:
        if asked_region:
            raise Problem(
                400,
                f'Mounts source volume "{volume.id}" is in the wrong region '
                f'("{volume.region}" != "{machine.region}")',
            )
        machine.region = volume.region
    if bound_to(volume):
        raise failed_precondition("volume already claimed by machine")
    volume.machine, volume.bound_until_ms = machine.id, 0
    emulator.store.put(volume)


def bound_to(volume: Volume) -> str:
    """Id of the machine that holds a volume; the bond of a destroyed one lingers a while."""
    if volume.bound_until_ms and volume.bound_until_ms <= now_ms():
        volume.machine, volume.bound_until_ms = "", 0
    return volume.machine


def volume_of(call: Call) -> Volume:
    """The volume of the path, to be read.

    Raises:
        Problem: 404.
    """
    app = call.app()
    volume = call.emulator.store.volumes.get(call.param("volume"))
    if volume is None or volume.app != app.name:
        raise Problem(404, "not_found: volume not found")
    return volume


def reachable(call: Call) -> Volume:
    """The volume of the path, to act on.

    Raises:
        Problem: 404; 503 when its host, that of its machine, does not answer.
    """
    volume = volume_of(call)
    if _host_status(call.emulator, volume) != "ok":
        raise Problem(503, f"unavailable: host of volume {volume.id} does not answer")
    return volume


def _host_status(emulator: Emulator, volume: Volume) -> str:
    machine = emulator.store.machines.get(bound_to(volume))
    return machine.host_status if machine else "ok"


@routes.on("GET", VOLUMES)
async def list_volumes(call: Call) -> Response:
    """The volumes of an app, those that are being deleted included."""
    app = call.app()
    summary = boolean(call.query("summary"), where="summary")
    volumes = sorted(call.emulator.store.volumes_of(app.name), key=lambda item: item.created_ms)
    for volume in volumes:
        bound_to(volume)
    shown = [
        volume_json(volume, summary=summary, host_status=_host_status(call.emulator, volume))
        for volume in volumes
    ]
    return answer(shown)


@routes.on("POST", VOLUMES)
async def create(call: Call) -> Response:
    """Create a volume: empty, a fork of another, or what a snapshot holds."""
    app, emulator = call.app(), call.emulator
    body = call.body(CreateVolume, "main.createVolumeRequest")
    if not NAME.match(body.name):
        raise Problem(
            400,
            "invalid name, must be at most 30 characters of lowercase letters, numbers and "
            "underscores",
        )
    _check_size(body.size_gb)
    _check_retention(body.snapshot_retention)
    if body.fstype not in ("ext4", "raw"):
        raise Problem(400, "invalid fstype, must be one of [ext4 raw]")
    if body.compute is not None:
        check_guest(body.compute)
    if len(emulator.store.volumes) >= MAX_VOLUMES:
        raise Problem(422, f"this emulator holds at most {MAX_VOLUMES} volumes")
    source = _source(call, body)
    volume = Volume(
        id=ids.volume_id(),
        app=app.name,
        name=body.name,
        region=choose_region(body.region, emulator.region),
        zone=secrets.token_hex(2),
        size_gb=source.size_gb,
        encrypted=body.encrypted,
        fstype=body.fstype,
        snapshot_retention=body.snapshot_retention,
        auto_backup_enabled=body.auto_backup_enabled,
    )
    await make(call, volume.id, source)
    emulator.store.put(volume)
    return answer(volume_json(volume))


@routes.on("GET", VOLUME)
async def get(call: Call) -> Response:
    """One volume, with what is used of it."""
    volume = volume_of(call)
    bound_to(volume)
    holder = _holder(call.emulator, volume)
    used = await call.emulator.flyd.volumes.used_bytes(volume.id, holder)
    host_status = _host_status(call.emulator, volume)
    return answer(volume_json(volume, used_bytes=used, host_status=host_status))


@routes.on("PUT", VOLUME)
async def update(call: Call) -> Response:
    """Change how snapshots are kept."""
    volume = reachable(call)
    body = call.body(UpdateVolume, "main.updateVolumeRequest")
    if body.snapshot_retention is not None:
        _check_retention(body.snapshot_retention)
        volume.snapshot_retention = body.snapshot_retention
    if body.auto_backup_enabled is not None:
        volume.auto_backup_enabled = body.auto_backup_enabled
    changed(call, volume)
    return answer(volume_json(volume))


@routes.on("DELETE", VOLUME)
async def delete(call: Call) -> Response:
    """Delete a volume that no machine holds; its content is gone at once."""
    volume = reachable(call)
    if holder := bound_to(volume):
        raise failed_precondition(f"volume is currently bound to machine: {holder}")
    if volume.state != "pending_destroy":
        volume.state = "pending_destroy"
        changed(call, volume)
        await call.emulator.flyd.remove_volume(volume)
    return answer(volume_json(volume))


@routes.on("PUT", VOLUME + "/extend")
async def extend(call: Call) -> Response:
    """Make it larger; a machine sees that at once where the kernel lets root do that."""
    volume = reachable(call)
    body = call.body(ExtendVolume, "main.extendVolumeRequest")
    _check_size(body.size_gb)
    if body.size_gb < volume.size_gb:
        raise Problem(400, f"invalid size_gb, volume size cannot shrink from {volume.size_gb}")
    holder = _holder(call.emulator, volume)
    try:
        needs_restart = call.emulator.flyd.volumes.grow(volume.id, body.size_gb, holder)
    except EngineError as error:
        raise Problem(500, f"internal: {error}") from None
    volume.size_gb = body.size_gb
    changed(call, volume)
    return answer({"volume": volume_json(volume), "needs_restart": needs_restart})


class Source(NamedTuple):
    """What a new volume begins as.

    Attributes:
        size_gb: Of the new volume.
        content: Id of the volume or snapshot that is copied; empty for none.
        live: The volume, if it is one.
    """

    size_gb: int
    content: str = ""
    live: Volume | None = None


def _source(call: Call, body: CreateVolume) -> Source:
    volumes = call.emulator.store.volumes.values()
    if body.source_volume_id:
        for volume in volumes:
            if volume.id == body.source_volume_id and volume.state == "created":
                return Source(max(body.size_gb, volume.size_gb), volume.id, volume)
        raise Problem(400, f"source volume {body.source_volume_id} not found")
    if body.snapshot_id:
        for volume in volumes:
            for snapshot in volume.snapshots:
                if snapshot.id == body.snapshot_id and snapshot.status == "created":
                    return Source(max(body.size_gb, volume.size_gb), snapshot.id)
        raise Problem(400, f"snapshot {body.snapshot_id} not found")
    return Source(body.size_gb)


async def make(call: Call, new: str, source: Source) -> None:
    """Make a volume or snapshot of this id."""
    holder = _holder(call.emulator, source.live)
    try:
        await call.emulator.flyd.volumes.make(new, source.size_gb, source.content, holder)
    except EngineError as error:
        raise Problem(500, f"internal: {error}") from None


def _holder(emulator: Emulator, volume: Volume | None) -> RunningMachine | None:
    """What runs and has the volume."""
    life = emulator.flyd.lives.get(volume.machine) if volume else None
    return life.running if life else None


def _check_size(size_gb: int) -> None:
    if not 1 <= size_gb <= MAX_SIZE_GB:
        raise Problem(400, f"invalid size_gb, must be between 1 and {MAX_SIZE_GB}")


def _check_retention(days: int) -> None:
    if not 1 <= days <= 60:
        raise Problem(400, "invalid snapshot_retention, must be between 1 and 60")


def changed(call: Call, volume: Volume) -> None:
    """Keep what has changed."""
    volume.updated_ms = now_ms()
    call.emulator.store.put(volume)
