"""A cook-agent of the user's: brought into the machine, which starts it on port 7422.

It travels in the machine's config where it fits, compressed, and is there when the machine boots.
A larger one goes up like any file: over our own agent in one request, over the Machines API
alone in pieces. Its digest is always in the config, and what does not have it is not started.
Ours stands beside it on a port of its own.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from pytest_flymachines.errors import MachineStartFailed, SettingsError
from pytest_flymachines.machine_config import COOK_AGENT_PORT, GUEST_DIR
from pytest_flymachines.sandbox import ExecResult, Sandbox
from pytest_flymachines.spec import SandboxSpec

__all__ = ["CONFIG_BYTES", "check", "config_files", "deliver"]

# How much a config may hold is not documented; every GET of the machine gives it back. In base64,
# beside our own files, this makes one of less than 0.7 MB.
CONFIG_BYTES = 384 * 1024

# As the backend that cook-agent comes from does: 12 looks, half a second apart.
_TRIES, _PAUSE_S = 12, 0.5
_PARCEL = b".pytest-flymachines.agent"
_PIECE = 1 << 20
_ABSENT, _DAMAGED = 90, 91

_AWAIT = f"""
dir="${{PYTEST_FLYMACHINES_ROOT:-}}{GUEST_DIR}"
pause() {{
    left=$((left - 1))
    [ "$left" -gt 0 ] && {{ sleep {_PAUSE_S} 2>/dev/null || sleep 1; }}
}}
left={_TRIES}
if [ -e {_PARCEL.decode()} ]; then
    found=$(sha256sum <{_PARCEL.decode()} 2>/dev/null)
    read -r wanted <"$dir/cook-agent.sha256"
    [ -z "$found" ] || [ "${{found%% *}}" = "$wanted" ] || exit {_DAMAGED}
    # by a rename in the end, because init starts what it finds
    mv {_PARCEL.decode()} "$dir/cook-agent.new" && chmod 755 "$dir/cook-agent.new" &&
        mv "$dir/cook-agent.new" "$dir/cook-agent" || exit
else
    # init is unpacking what came in the config, or has failed to
    while [ ! -e "$dir/cook-agent" ]; do
        [ -e "$dir/cook-agent.gz" ] && pause || exit {_ABSENT}
    done
fi
port=$(printf %04X {COOK_AGENT_PORT})
host='*'
# without a network of its own a machine has an address, and others listen on the same port
if [ -n "${{PYTEST_FLYMACHINES_BIND:-}}" ]; then
    IFS=. read -r a b c d <<ADDRESS
$PYTEST_FLYMACHINES_BIND
ADDRESS
    host=$(printf %02X%02X%02X%02X "$d" "$c" "$b" "$a")
fi
while :; do
    while read -r _ local _ state _; do
        case $local:$state in $host:$port:0A) exit 0 ;; esac
    done <<TABLE
$(cat /proc/net/tcp /proc/net/tcp6 2>/dev/null)
TABLE
    pause || break
done
cat "$dir/foreign-agent.log" >&2
exit 1
"""


def check(spec: SandboxSpec) -> None:
    """Refuse an agent that is not there, before any machine is launched.

    Raises:
        SettingsError: `spec.agent` is neither `auto`, `off` nor a file.
    """
    if _is_named(spec) and not _program(spec).is_file():
        raise SettingsError(
            f"agent={spec.agent!r}: no such file; expected auto, off, or the path of a cook-agent "
            "program (--fly-agent, COOK_AGENT_PATH)"
        )


def config_files(spec: SandboxSpec) -> Mapping[str, bytes]:
    """What travels in the machine's config: the agent's digest, and itself where it fits."""
    if not _is_named(spec):
        return {}
    digest, packer = hashlib.sha256(), zlib.compressobj(9, wbits=31)
    packed = b""
    for piece in _pieces(_program(spec)):
        digest.update(piece)
        # a large one is read on for its digest, but not compressed for nothing
        if len(packed) <= CONFIG_BYTES:
            packed += packer.compress(piece)
    packed += packer.flush()
    files = {"cook-agent.sha256": f"{digest.hexdigest()}\n".encode()}
    if len(packed) <= CONFIG_BYTES:
        files["cook-agent.gz"] = packed
    return files


def deliver(sandbox: Sandbox, spec: SandboxSpec, *, replayed: bool) -> None:
    """Wait until the user's agent listens, uploaded first where it did not come in the config.

    Raises:
        MachineStartFailed: It did not come up; the message has its log.
    """
    if not _is_named(spec):
        return
    started = _await(sandbox)
    if started.exit_code == _ABSENT:
        pieces = iter(()) if replayed else _pieces(_program(spec))
        sandbox.attachment.channel.write(_PARCEL, pieces, mode=0o755, parents=False)
        started = _await(sandbox)
    if started.exit_code == _DAMAGED:
        raise MachineStartFailed(
            f"the cook-agent of {spec.agent} changed while it was brought to machine "
            f"{sandbox.machine_id}: what arrived has another SHA-256 than the launch began with"
        )
    if not started.ok:
        raise MachineStartFailed(
            f"the cook-agent of {spec.agent} did not listen on port {COOK_AGENT_PORT} of machine "
            f"{sandbox.machine_id} within {_TRIES * _PAUSE_S:g} s\n--- its log ---\n"
            f"{started.stderr.strip() or '(empty)'}\n"
            "It must be a program that the image can run; --fly-agent=auto does without it."
        )


def _await(sandbox: Sandbox) -> ExecResult:
    return sandbox.exec(_AWAIT, check=False, errors="replace")


def _is_named(spec: SandboxSpec) -> bool:
    return spec.agent not in ("auto", "off")


def _program(spec: SandboxSpec) -> Path:
    return Path(spec.agent).expanduser()


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece
