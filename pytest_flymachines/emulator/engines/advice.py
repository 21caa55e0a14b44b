"""What keeps an ordinary user's machines from starting on some computers."""

from __future__ import annotations

import contextlib
from pathlib import Path

__all__ = ["advice"]

_SETTINGS = {
    "kernel.apparmor_restrict_unprivileged_userns": (
        "1",
        "AppArmor keeps ordinary users from user namespaces",
        "0",
    ),
    "kernel.unprivileged_userns_clone": ("0", "user namespaces are for root only", "1"),
    "user.max_user_namespaces": ("0", "user namespaces are switched off", "15000"),
}
"""What keeps a kernel from running machines: setting, bad value, what it does, good value."""


def advice() -> str:
    """What to change on this computer, where that can be told."""
    found = []
    for setting, (bad, what, good) in _SETTINGS.items():
        with contextlib.suppress(OSError):
            if Path("/proc/sys", setting.replace(".", "/")).read_text().strip() == bad:
                found.append(f" {what}: as root, `sysctl -w {setting}={good}`.")
    return "".join(found)
