"""The moment at which a machine ends itself: its init counts, whoever uses it renews."""

from __future__ import annotations

import time

from pytest_flymachines.api import MachinesClient
from pytest_flymachines.machine_config import GUEST_DIR

__all__ = ["DEADLINE_KEY", "TTL_KEY", "renew", "stamp"]

DEADLINE_KEY = "pytest_flymachines_deadline"
TTL_KEY = "pytest_flymachines_ttl"

# The machine's uptime makes each renewal differ from the last one, which init compares.
_RENEW = (
    f'cd "${{PYTEST_FLYMACHINES_ROOT:-}}{GUEST_DIR}" && read -r up _ </proc/uptime && '
    'echo "$up $0" >renew.new && mv renew.new renew'
)


def stamp(ttl_s: float) -> str:
    """A deadline as metadata: seconds since the epoch by this computer's clock."""
    return str(int(time.time() + ttl_s))


def renew(client: MachinesClient, app: str, machine_id: str, ttl_s: float) -> None:
    """Let a machine live for at least `ttl_s` seconds from now.

    The machine counts by its own uptime; the metadata are for the sweep of other runs.

    Raises:
        ApiError: The machine does not run any more, or the API refused.
    """
    client.exec(app, machine_id, ["/bin/sh", "-c", _RENEW, str(int(ttl_s))])
    client.set_metadata(app, machine_id, DEADLINE_KEY, stamp(ttl_s))
