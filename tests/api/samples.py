"""Bodies as Fly documents them or sends them."""

from __future__ import annotations

from typing import Any

ID = "d8d9e1b2c45678"
VERSION = "01K1F0A3D9P6W0S6R7J8T5Q2XZ"
PATH = f"/v1/apps/app/machines/{ID}"


def event(kind: str, status: str, number: int, **request: Any) -> dict[str, Any]:
    """An event; larger numbers are later."""
    body = {
        "id": f"01K1F0{number:020}",
        "type": kind,
        "status": status,
        "source": "flyd",
        "timestamp": 1785412800000 + number,
    }
    return {**body, "request": request} if request else body


def exited(number: int, **exit_event: Any) -> dict[str, Any]:
    return event("exit", "stopped", number, exit_event=exit_event, restart_count=0)


LAUNCH = event("launch", "created", 1)
START = event("start", "started", 2)
EXIT = exited(3, exit_code=1, exited_at="2026-07-30T12:02:10.299Z")


def machine(state: str, *events: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A machine; events newest first."""
    return {
        "id": ID,
        "name": "sbx-01",
        "state": state,
        "region": "fra",
        "image_ref": {
            "registry": "registry-1.docker.io",
            "repository": "library/python",
            "tag": "3.12-slim",
            "digest": "sha256:597c3e12",
            "labels": None,
        },
        "instance_id": VERSION,
        "version": VERSION,
        "private_ip": "fdaa:0:18:a7b:7d:f066:e83a:2",
        "created_at": "2026-07-30T12:00:00Z",
        "updated_at": "2026-07-30T12:00:00Z",
        "config": {
            "init": {"exec": ["/bin/sleep", "inf"]},
            "guest": {"cpu_kind": "shared", "cpus": 1, "memory_mb": 512},
            "metadata": {"run": "r1"},
            "image": "registry-1.docker.io/library/python:3.12-slim",
            "services": [{"protocol": "tcp", "internal_port": 8080, "force_instance_key": None}],
        },
        "events": list(events),
        "host_status": "ok",
        "cordoned": False,
        "something_new": {"of": ["tomorrow"]},
        **changes,
    }
