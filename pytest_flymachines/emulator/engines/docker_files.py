"""Files as they come out of a container."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from typing import IO, Any

__all__ = ["only_file"]

_NOT_REGULAR = 0x8F280000
"""Bits of Go's FileMode: directory, link, device, pipe, socket, irregular."""


def only_file(stream: Iterable[bytes], about: Mapping[str, Any]) -> IO[bytes] | None:
    """The one regular file of an archive of the daemon's; None if it is something else.

    Args:
        stream: The archive.
        about: What the daemon says of the path.
    """
    if about["mode"] & _NOT_REGULAR:
        return None
    with tempfile.TemporaryFile() as whole:
        whole.writelines(stream)
        whole.seek(0)
        with tarfile.open(fileobj=whole, mode="r:") as archive:
            file = next(filter(None, map(archive.extractfile, archive)))
            content = tempfile.TemporaryFile()  # noqa: SIM115 - the caller's to close
            shutil.copyfileobj(file, content)
    content.seek(0)
    return content
