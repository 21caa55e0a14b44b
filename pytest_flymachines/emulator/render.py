"""Records as the API shows them."""

from __future__ import annotations

import zlib
from typing import Any

from pytest_flymachines.emulator.images import image_ref
from pytest_flymachines.emulator.model import App, IpAssignment, Machine, Volume
from pytest_flymachines.emulator.store import Store
from pytest_flymachines.emulator.wiretime import rfc3339, rfc3339_ms

__all__ = [
    "BLOCK_SIZE",
    "app_json",
    "ip_json",
    "machine_json",
    "org_machine_json",
    "org_name",
    "org_number",
    "volume_json",
]

SHOWN_EVENTS = 15
BLOCK_SIZE = 4096


def machine_json(
    machine: Machine, *, nonce: str | None = None, summary: bool = False
) -> dict[str, Any]:
    """A Machine; `summary` leaves out config, checks, events and host_status."""
    shown: dict[str, Any] = {
        "id": machine.id,
        "name": machine.name,
        "state": machine.state,
        "region": machine.region,
        "image_ref": image_ref(machine.image, machine.digest),
        "instance_id": machine.instance_id,
        "version": machine.instance_id,
        "private_ip": machine.private_ip,
        "created_at": rfc3339(machine.created_ms),
        "updated_at": rfc3339(machine.updated_ms),
        "cordoned": machine.cordoned,
    }
    if not summary:
        events = machine.events[:SHOWN_EVENTS]
        events += [event for event in machine.events[SHOWN_EVENTS:] if event.type == "launch"][:1]
        shown |= {"config": machine.config, "events": events, "host_status": machine.host_status}
        if machine.host_status != "ok":
            shown |= {"config": None, "incomplete_config": machine.config}
        if machine.checks:
            shown["checks"] = list(machine.checks.values())
        if machine.containers:
            shown["containers"] = [
                {"name": name, "state": state} for name, state in machine.containers.items()
            ]
        if nonce:
            shown["nonce"] = nonce
    return shown


def org_machine_json(machine: Machine) -> dict[str, Any]:
    """An OrgMachine."""
    shown = machine_json(machine, summary=True)
    for extra in ("image_ref", "cordoned"):
        del shown[extra]
    config = machine.config
    return shown | {
        "app_name": machine.app,
        "config": {"guest": config.guest, "image": config.image, "metadata": config.metadata or {}},
    }


def app_json(app: App, store: Store) -> dict[str, Any]:
    """An App."""
    machines = [machine for machine in store.machines_of(app.name) if not machine.destroyed_ms]
    return {
        "id": app.id,
        "internal_numeric_id": app.number,
        "name": app.name,
        "network": app.network,
        "status": "deployed" if machines else "pending",
        "machine_count": len(machines),
        "volume_count": sum(volume.state == "created" for volume in store.volumes_of(app.name)),
        "organization": {
            "name": org_name(app.org),
            "slug": app.org,
            "internal_numeric_id": org_number(app.org),
        },
        "cname_target": f"{app.id}.{app.name}.fly.dev",
        "app_role": app.role,
    }


def org_name(slug: str) -> str:
    """The name of an organization, made of its slug."""
    return slug.replace("-", " ").title()


def org_number(slug: str) -> int:
    """The number of an organization, the same in every run."""
    return 1 + zlib.crc32(slug.encode()) % 1_000_000


def ip_json(assignment: IpAssignment) -> dict[str, Any]:
    """An IPAssignment."""
    return {
        "ip": assignment.ip,
        "region": assignment.region,
        "service_name": assignment.service_name,
        "shared": assignment.shared,
        "created_at": rfc3339(assignment.created_ms),
    }


def volume_json(
    volume: Volume, *, used_bytes: int = 0, summary: bool = False, host_status: str = "ok"
) -> dict[str, Any]:
    """A Volume; sizes follow from `size_gb`."""
    total = volume.size_gb * 1_048_917_333
    blocks = total // BLOCK_SIZE
    free = max(blocks - used_bytes // BLOCK_SIZE, 0)
    shown: dict[str, Any] = {
        "id": volume.id,
        "name": volume.name,
        "state": volume.state,
        "size_gb": volume.size_gb,
        "region": volume.region,
        "zone": volume.zone,
        "encrypted": volume.encrypted,
        "attached_machine_id": volume.machine or None,
        "attached_alloc_id": None,
        "created_at": rfc3339_ms(volume.created_ms),
    }
    if not summary:
        shown |= {
            "blocks": blocks,
            "block_size": BLOCK_SIZE,
            "blocks_free": free,
            "blocks_avail": free * 95 // 100,
            "bytes_used": min(used_bytes, total),
            "bytes_total": total,
            "fstype": volume.fstype,
            "snapshot_retention": volume.snapshot_retention,
            "auto_backup_enabled": volume.auto_backup_enabled,
            "host_dedication_key": "",
            "type": "local",
            "host_status": host_status,
        }
    return shown
