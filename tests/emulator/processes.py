"""Looking at processes of this computer."""

from __future__ import annotations

from pathlib import Path


def has_ended(pid: int) -> bool:
    """Whether a process has ended; one that nobody has waited for is gone too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
