"""A cook-agent of the user's: brought into the machine, which starts it on port 7422.

It goes up like any file: over our own agent in one request, compressed, checked by a digest,
and over the Machines API alone in pieces. Ours stands beside it on a port of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pytest_flymachines.errors import MachineStartFailed, SettingsError
from pytest_flymachines.machine_config import COOK_AGENT_PORT, GUEST_DIR
from pytest_flymachines.sandbox import Sandbox
from pytest_flymachines.spec import SandboxSpec

__all__ = ["check", "deliver"]

# As the backend that cook-agent comes from does: 12 looks, half a second apart.
_TRIES, _PAUSE_S = 12, 0.5
_PARCEL = b".pytest-flymachines.agent"
_PIECE = 1 << 20

_INSTALL = f"""
dir="${{PYTEST_FLYMACHINES_ROOT:-}}{GUEST_DIR}"
chmod 755 .pytest-flymachines.agent && mv .pytest-flymachines.agent "$dir/cook-agent" || exit
port=$(printf %04X {COOK_AGENT_PORT})
host='*'
# without a network of its own a machine has an address, and others listen on the same port
if [ -n "${{PYTEST_FLYMACHINES_BIND:-}}" ]; then
    IFS=. read -r a b c d <<ADDRESS
$PYTEST_FLYMACHINES_BIND
ADDRESS
    host=$(printf %02X%02X%02X%02X "$d" "$c" "$b" "$a")
fi
for try in $(seq {_TRIES}); do
    while read -r _ local _ state _; do
        case $local:$state in $host:$port:0A) exit 0 ;; esac
    done <<TABLE
$(cat /proc/net/tcp /proc/net/tcp6 2>/dev/null)
TABLE
    sleep {_PAUSE_S}
done
cat "$dir/foreign-agent.log" >&2
exit 1
"""


def check(spec: SandboxSpec) -> None:
    """Refuse an agent that is not there, before any machine is launched.

    Raises:
        SettingsError: `spec.agent` is neither `auto`, `off` nor a file.
    """
    if spec.agent not in ("auto", "off") and not Path(spec.agent).expanduser().is_file():
        raise SettingsError(
            f"agent={spec.agent!r}: no such file; expected auto, off, or the path of a cook-agent "
            "program (--fly-agent, COOK_AGENT_PATH)"
        )


def deliver(sandbox: Sandbox, spec: SandboxSpec, *, replayed: bool) -> None:
    """Upload the user's agent and wait until it listens; nothing to do for `auto` and `off`.

    Raises:
        MachineStartFailed: It did not come up; the message has its log.
    """
    if spec.agent in ("auto", "off"):
        return
    pieces = iter(()) if replayed else _pieces(Path(spec.agent).expanduser())
    sandbox.attachment.channel.write(_PARCEL, pieces, mode=0o755, parents=False)
    started = sandbox.exec(_INSTALL, check=False, errors="replace")
    if not started.ok:
        raise MachineStartFailed(
            f"the cook-agent of {spec.agent} did not listen on port {COOK_AGENT_PORT} of machine "
            f"{sandbox.machine_id} within {_TRIES * _PAUSE_S:g} s\n--- its log ---\n"
            f"{started.stderr.strip() or '(empty)'}\n"
            "It must be a program that the image can run; --fly-agent=auto does without it."
        )


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece
