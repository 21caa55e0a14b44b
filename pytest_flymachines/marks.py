"""The marks by which machines and volumes are known as ours, and whose they are.

Machines carry metadata; volumes have none, so their names say it.
"""

from __future__ import annotations

import hashlib
import re
import time

__all__ = [
    "DEADLINE_KEY",
    "LOCK_KEY",
    "OWNER_KEY",
    "RUN_KEY",
    "SPEC_KEY",
    "TTL_KEY",
    "USER_PREFIX",
    "grace_s",
    "machine_name",
    "stamp",
    "volume_name",
    "volume_run",
    "volume_ttl_s",
]

RUN_KEY = "pytest_flymachines_run"
SPEC_KEY = "pytest_flymachines_spec"
OWNER_KEY = "pytest_flymachines_owner"
LOCK_KEY = "pytest_flymachines_lock"
DEADLINE_KEY = "pytest_flymachines_deadline"
TTL_KEY = "pytest_flymachines_ttl"
#: One key for each shard that uses the machine; its value is that shard's deadline.
USER_PREFIX = "pytest_flymachines_user_"

_OWN_RUN_ID = re.compile("[0-9a-f]{16}")
_VOLUME = re.compile("(ptfm_[0-9a-f]{16})_([0-9a-f]{1,8})")


def machine_name(run_id: str, key: str) -> str:
    """Name of a run's machine; a run id that a user chose may be long and hold any character."""
    if _OWN_RUN_ID.fullmatch(run_id):
        return f"pytest-{run_id[:12]}-{key}"
    shown = re.sub("[^a-z0-9]+", "-", run_id.lower()).strip("-")[:16]
    return f"pytest-{shown}-{_digest(run_id)[:8]}-{key}"


def volume_run(run_id: str) -> str:
    """How the names of a run's volumes begin."""
    return f"ptfm_{_digest(run_id)[:16]}"


def volume_name(run_id: str, ttl_s: int) -> str:
    """Name of a run's volumes: whose, and how long after its creation one may be unused."""
    return f"{volume_run(run_id)}_{min(ttl_s, 0xFFFFFFFF):x}"


def volume_ttl_s(name: str) -> int | None:
    """Seconds that a volume of this name may be unused; None if the name is not ours."""
    found = _VOLUME.fullmatch(name)
    return int(found[2], 16) if found else None


def stamp(ttl_s: float) -> str:
    """A deadline as metadata: seconds since the epoch by this computer's clock."""
    return str(int(time.time() + ttl_s))


def grace_s(ttl_s: float) -> float:
    """How long after a deadline nobody is told to be late: clocks of computers disagree."""
    return min(120.0, ttl_s)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
