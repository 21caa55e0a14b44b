"""Files of the config, written into the machine before its main process starts."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["write_file"]


def write_file(path: Path, content: bytes, mode: int) -> None:
    """Create or replace a file, with its parents.

    It is replaced, not overwritten: the file of that name may belong to this computer's root,
    who has no id in the machine of an ordinary user.

    Raises:
        OSError: With the path; for instance where a directory stands.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        os.fchmod(fd, mode)
