"""The moment at which a machine ends itself: its init counts, whoever uses it renews."""

from __future__ import annotations

from contextlib import suppress

from pytest_flymachines.api import MachinesClient
from pytest_flymachines.errors import Conflict, FlyMachinesError
from pytest_flymachines.machine_config import GUEST_DIR
from pytest_flymachines.marks import DEADLINE_KEY, USER_PREFIX, stamp

__all__ = ["left_s", "renew"]

# Written: the machine's uptime, by which init sees that it is new, and seconds from then on.
# Printed: those seconds, which are more than asked for where somebody asked for more before.
_RENEW = f"""
cd "${{PYTEST_FLYMACHINES_ROOT:-}}{GUEST_DIR}" && read -r up _ </proc/uptime || exit
left=$0 then=0 more=0
[ ! -e renew ] || read -r then more <renew
case ${{then%%.*}}$more in
'' | *[!0-9]*) ;;
*) before=$((${{then%%.*}} + more - ${{up%%.*}})) && [ "$before" -gt "$left" ] && left=$before ;;
esac
echo "$up $left" >renew.new && mv renew.new renew && echo "$left"
"""


def renew(
    client: MachinesClient, app: str, machine_id: str, ttl_s: float, *, user: str = ""
) -> float:
    """Let a machine live for at least `ttl_s` seconds from now.

    The machine counts by its own uptime; the metadata are for the sweep of other runs. One
    that does not run, such as a suspended one, counts nothing, and gets only the metadata.

    Args:
        client: Of the API.
        app: App of the machine.
        machine_id: The machine.
        ttl_s: Seconds.
        user: Of several shards that use it, the one that renews.

    Returns:
        Seconds until its end, if nobody renews again.

    Raises:
        NotFound: The machine is gone.
        ApiError: The API refused.
    """
    left = ttl_s
    with suppress(Conflict):
        left = _ask(client, app, machine_id, ttl_s) or left
    client.set_metadata(app, machine_id, DEADLINE_KEY, stamp(left))
    if user:
        client.set_metadata(app, machine_id, USER_PREFIX + user, stamp(ttl_s))
    return left


def left_s(client: MachinesClient, app: str, machine_id: str) -> float:
    """Seconds until a machine that runs ends itself, by its own clock; 0 where it does not say."""
    try:
        return _ask(client, app, machine_id, 0)
    except FlyMachinesError:
        return 0.0


def _ask(client: MachinesClient, app: str, machine_id: str, ttl_s: float) -> float:
    answer = client.exec(app, machine_id, ["/bin/sh", "-c", _RENEW, str(int(ttl_s))])
    printed = (answer.stdout or "").strip()
    return float(printed) if answer.exit_code == 0 and printed.isdecimal() else 0.0
