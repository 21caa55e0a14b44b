"""Fly's OpenAPI document, changed so that what is generated from it gets somewhere.

`plain` only makes ids be those of things that exist. `sharp` also says what the document leaves
to its readers: which guests there are, that a check needs a port, and so on.
"""

from __future__ import annotations

import copy
from typing import Any

from tests.emulator.fuzz_world import APPS, MACHINES, VOLUMES
from tests.emulator.openapi import document

__all__ = ["plain", "sharp"]

JSON = dict[str, Any]

PORT: JSON = {"type": "integer", "minimum": 1, "maximum": 65535}
DURATION: JSON = {"enum": ["1s", "1.5s", "15s", "1m30s", "250ms", "0s"]}
BYTES: JSON = {"enum": ["", "c2VjcmV0", "AAECAw=="]}
ARGV: JSON = {"enum": [["sleep", "inf"], ["true"], ["false"], ["sh", "-c", "exit 3"], ["no-such"]]}
REGION: JSON = {"enum": ["", "ord", "fra", "eu", "any", "ord,fra", "nowhere"]}
ENV: JSON = {"type": "object", "propertyNames": {"pattern": "^[A-Z_]{1,9}$"}, "maxProperties": 3,
             "additionalProperties": {"type": "string"}}  # fmt: skip
CHECK: JSON = {
    "type": {"enum": ["tcp", "http"]},
    "port": PORT,
    "path": {"enum": ["/", "/x?y=1"]},
    "interval": DURATION,
    "timeout": DURATION,
    "grace_period": DURATION,
}

PATH: dict[str, JSON] = {
    "app_name": {"enum": APPS},
    "machine_id": {"enum": MACHINES},
    "volume_id": {"enum": VOLUMES},
    "org_slug": {"enum": ["personal", "unknown"]},
    "key": {"type": "string", "minLength": 1},
    "secret_name": {"anyOf": [{"enum": ["A", "TOKEN"]}, {"type": "string", "minLength": 1}]},
    "ip": {"type": "string", "minLength": 1},
    "hostname": {"type": "string", "minLength": 1},
}

#: What a field of a schema may be, and which fields it must have.
FIELDS: dict[str, JSON] = {
    "CreateAppRequest": {
        "name": {"type": "string", "pattern": "^[a-z0-9-]{1,63}$"},
        "org_slug": {"enum": ["personal", "personal", "unknown"]},
    },
    "CreateMachineRequest": {"region": REGION, "lease_ttl": {"enum": [0, 0, 1]}},
    "UpdateMachineRequest": {"lease_ttl": {"enum": [0, 0, 1]}, "current_version": {"enum": [""]}},
    "CreateVolumeRequest": {
        "name": {"type": "string", "pattern": "^[a-z0-9_]{1,30}$"},
        "region": {"enum": ["ord", "fra"]},
        "size_gb": {"type": "integer", "minimum": 1, "maximum": 500},
        "fstype": {"enum": ["ext4", "raw"]},
        "snapshot_id": {"enum": [""]},
        "snapshot_retention": {"type": "integer", "minimum": 1, "maximum": 60},
        "source_volume_id": {"enum": ["", "the-volume"]},
    },
    "CreateLeaseRequest": {"ttl": {"enum": [1, 2]}},
    "ExtendVolumeRequest": {"size_gb": {"type": "integer", "minimum": 3, "maximum": 500}},
    "MachineExecRequest": {
        "command": ARGV,
        "timeout": {"enum": [1, 2]},
        "container": {"enum": [""]},
    },
    "StopRequest": {"timeout": DURATION},
    "assignIPRequest": {
        "type": {"enum": ["v4", "v6", "shared_v4", "private_v6"]},
        "region": REGION,
        "org_slug": {"enum": ["", "personal"]},
        "network": {"enum": [""]},
    },
    "main.setMemoryLimitRequest": {"limit_mb": {"type": "integer", "minimum": 1, "maximum": 256}},
    "main.getPlacementsRequest": {"org_slug": {"enum": ["personal"]}, "region": REGION},
    "updateMetadataRequest": {"machine_version": {"enum": [""]}},
    "fly.Static": {"guest_path": {"enum": ["/srv"]}, "url_prefix": {"enum": ["/s"]}},
    "fly.MachineConfig": {
        "image": {"enum": ["debian:stable-slim", "alpine", "docker.io/library/python:3.12"]},
        "checks": {
            "type": "object",
            "maxProperties": 2,
            "additionalProperties": {"$ref": "#/components/schemas/fly.MachineCheck"},
        },
        "containers": {
            "type": "array",
            "maxItems": 2,
            "items": {"$ref": "#/components/schemas/fly.ContainerConfig"},
        },
        "env": ENV,
        "files": {
            "type": "array",
            "maxItems": 2,
            "items": {"$ref": "#/components/schemas/fly.File"},
        },
        "mounts": {
            "type": "array",
            "maxItems": 1,
            "items": {"$ref": "#/components/schemas/fly.MachineMount"},
        },
        "processes": {
            "type": "array",
            "maxItems": 2,
            "items": {"$ref": "#/components/schemas/fly.MachineProcess"},
        },
        "schedule": {"enum": ["", "hourly", "daily"]},
        "size": {"enum": [""]},
    },
    "fly.MachineGuest": {
        "cpu_kind": {"enum": ["shared", "shared", "performance"]},
        "cpus": {"enum": [1, 2]},
        "memory_mb": {"enum": [512, 1024, 2048]},
        "gpus": {"enum": [0]},
    },
    "fly.MachineInit": {"exec": ARGV, "cmd": ARGV, "entrypoint": {"enum": [[], ["/bin/sh"]]}},
    "fly.MachineProcess": {"exec": ARGV, "env": ENV, "user": {"enum": ["", "root", "nobody"]}},
    "fly.ContainerConfig": {
        "name": {"enum": ["one", "two"]},
        "image": {"enum": ["alpine"]},
        "exec": ARGV,
        "cmd": ARGV,
        "entrypoint": {"enum": [[], ["/bin/sh"]]},
        "user": {"enum": ["", "root", "nobody"]},
        "env": ENV,
    },
    "fly.ContainerDependency": {
        "name": {"enum": ["one", "two"]},
        "condition": {"enum": ["started", "healthy", "exited_successfully"]},
    },
    "fly.ContainerHealthcheck": {
        "exec": {"enum": [{"command": ["true"]}, {"command": ["false"]}]},
        "http": {"enum": [{"port": 80}]},
        "tcp": {"enum": [{"port": 80}]},
        "interval": {"enum": [0, 1]},
        "timeout": {"enum": [0, 1]},
        "grace_period": {"enum": [0, 1]},
        "kind": {"enum": ["readiness", "liveness"]},
        "unhealthy": {"enum": ["", "stop"]},
    },
    "fly.MachineCheck": CHECK,
    "fly.MachineServiceCheck": CHECK,
    "fly.MachineService": {
        "protocol": {"enum": ["tcp", "udp"]},
        "internal_port": PORT,
        "min_machines_running": {"enum": [0, 1]},
    },
    "fly.MachineServiceConcurrency": {
        "type": {"enum": ["", "connections", "requests"]},
        "soft_limit": {"type": "integer", "minimum": 0},
        "hard_limit": {"type": "integer", "minimum": 0},
    },
    "fly.MachinePort": {
        "port": PORT,
        "start_port": PORT,
        "end_port": PORT,
        "handlers": {"enum": [[], ["http"], ["tls"], ["tls", "http"], ["proxy_proto"]]},
    },
    "fly.MachineMount": {"volume": {"enum": VOLUMES}, "path": {"enum": ["/data"]}},
    "fly.File": {
        "guest_path": {"type": "string", "pattern": "^/tmp/[a-z]{1,8}$"},
        "raw_value": BYTES,
        "secret_name": {"enum": [""]},
        "image_config": {"enum": [""]},
        "mode": {"enum": [0, 384, 420]},
    },
    "fly.StopConfig": {"timeout": DURATION},
}
REQUIRED = {
    "CreateAppRequest": ["name", "org_slug"],
    "CreateMachineRequest": ["config"],
    "UpdateMachineRequest": ["config"],
    "CreateVolumeRequest": ["name", "region"],
    "fly.MachineConfig": ["image"],
    "fly.ContainerConfig": ["name", "image"],
    "fly.ContainerDependency": ["name", "condition"],
    "fly.MachineGuest": ["cpu_kind", "cpus", "memory_mb"],
    "fly.MachineCheck": ["type", "port"],
    "fly.MachineServiceCheck": ["type"],
    "fly.MachineService": ["protocol", "internal_port"],
    "fly.MachinePort": ["port"],
    "assignIPRequest": ["type"],
    "fly.MachineMount": ["volume", "path"],
    "fly.File": ["guest_path"],
}


def plain() -> JSON:
    """The document with ids of things that exist; a wait says how long, and not long."""
    made = copy.deepcopy(document())
    for path, operations in made["paths"].items():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                if parameter["in"] == "path":
                    parameter["schema"] = PATH[parameter["name"]]
                if path.endswith("/wait") and parameter["name"] == "timeout":
                    parameter["required"] = True
                    parameter["schema"] = {"enum": [1, 0, 61, -1]}
    return made


def sharp() -> JSON:
    """What also passes validation, mostly."""
    made = plain()
    for name, fields in FIELDS.items():
        made["components"]["schemas"][name]["properties"].update(fields)
    for name, required in REQUIRED.items():
        made["components"]["schemas"][name]["required"] = required
    return made
