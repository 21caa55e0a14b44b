"""A `python3` for machines: this computer's own, or the one that runs us."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["HostPython", "find_python"]

_OLDEST = (3, 10)
_VISIBLE = ("/usr", "/opt", "/bin", "/lib")


@dataclass(frozen=True)
class HostPython:
    """How `python3` gets into a machine, if the system directories have none.

    Attributes:
        executable: What /usr/local/bin/python3 is to point to; None: nothing is needed.
        prefix: Directory to be shown read-only for it; None: it is visible anyway.
    """

    executable: Path | None = None
    prefix: Path | None = None


def find_python(path: str) -> HostPython:
    """Look for a Python that is not too old on a PATH; if there is none, take ours."""
    found = shutil.which("python3", path=path)
    if found and _version(found) >= _OLDEST:
        return HostPython()
    prefix = Path(sys.base_prefix).resolve()
    executable = prefix / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    visible = any(prefix.is_relative_to(directory) for directory in _VISIBLE)
    return HostPython(executable, None if visible else prefix)


def _version(executable: str) -> tuple[int, ...]:
    program = "import sys; print(*sys.version_info[:2])"
    done = subprocess.run(
        [executable, "-I", "-S", "-c", program],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    return tuple(map(int, done.stdout.split())) if done.returncode == 0 else ()
