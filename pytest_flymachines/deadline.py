"""The moment at which a machine ends itself: its init counts, whoever uses it renews."""

from __future__ import annotations

from pytest_flymachines.api import MachinesClient
from pytest_flymachines.errors import Conflict
from pytest_flymachines.machine_config import GUEST_DIR
from pytest_flymachines.marks import DEADLINE_KEY, USER_PREFIX, stamp

__all__ = ["renew"]

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
    left_s = ttl_s
    try:
        answer = client.exec(app, machine_id, ["/bin/sh", "-c", _RENEW, str(int(ttl_s))])
        if answer.exit_code == 0 and (printed := (answer.stdout or "").strip()).isdecimal():
            left_s = float(printed)
    except Conflict:
        pass
    client.set_metadata(app, machine_id, DEADLINE_KEY, stamp(left_s))
    if user:
        client.set_metadata(app, machine_id, USER_PREFIX + user, stamp(ttl_s))
    return left_s
