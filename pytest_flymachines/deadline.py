"""The moment at which a machine ends itself: its init counts, whoever uses it renews."""

from __future__ import annotations

from pytest_flymachines.api import MachinesClient
from pytest_flymachines.errors import Conflict
from pytest_flymachines.machine_config import GUEST_DIR
from pytest_flymachines.marks import DEADLINE_KEY, USER_PREFIX, stamp

__all__ = ["renew"]

# The machine's uptime makes each renewal differ from the last one, which init compares. It
# prints the seconds that the machine has then: more, where somebody asked for more before.
_RENEW = (
    f'cd "${{PYTEST_FLYMACHINES_ROOT:-}}{GUEST_DIR}" && read -r up _ </proc/uptime && '
    'echo "$up $0" >renew.new && mv renew.new renew || exit; '
    "up=${up%%.*}; d=0; [ ! -e deadline ] || read -r d <deadline; left=$((d - up)); "
    '[ "$left" -gt "$0" ] || left=$0; echo "$left"'
)


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
