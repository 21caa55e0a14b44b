"""What can be told of a cassette without taking it apart: its header, and how much there is.

Listing thousands of cassettes, or one of hundreds of MB, costs little time and no memory so.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_flymachines.cassettes.bodies import Blobs
from pytest_flymachines.cassettes.files import Serializer, check_format
from pytest_flymachines.errors import CassetteError

__all__ = ["Glance", "blobs_named_in", "glance"]

_BEGINNING = b"version: 1\nrecording:\n"
_INTERACTIONS = b"\ninteractions:\n"
# what stands in the first column; all else of ours is indented
_TOP = re.compile(rb"\n(?:(- request:\n)|[^ \n])")
_LARGEST_HEADER = 1 << 20


@dataclass(frozen=True)
class Glance:
    """What is seen at once.

    Attributes:
        header: What the file says of itself.
        requests: How many it holds.
        blobs: Digests of the large bodies that it names.
    """

    header: dict[str, Any]
    requests: int
    blobs: set[str]


def glance(path: Path) -> Glance | None:
    """Look at a cassette; None if it has another layout than ours, so that it has to be read.

    Raises:
        CassetteError: Its header is damaged, or of another version.
        OSError: It cannot be read.
    """
    with _mapped(path) as data:
        if data[: len(_BEGINNING)] != _BEGINNING:
            return None
        end = data.find(_INTERACTIONS, 0, _LARGEST_HEADER)
        if end < 0:
            return None
        requests = 0
        for match in _TOP.finditer(data, end + len(_INTERACTIONS) - 1):
            if not match[1]:
                return None
            requests += 1
        serializer = Serializer()
        try:
            serializer.deserialize(data[: end + 1].decode() + "interactions: []\n")
        except ValueError as error:
            raise CassetteError(f"{path} is not a cassette that can be read: {error}") from error
        check_format(path, serializer.header)
        return Glance(serializer.header, requests, Blobs.named_in(data))


def blobs_named_in(path: Path) -> set[str]:
    """Digests of the large bodies that a file of any layout names.

    Raises:
        OSError: It cannot be read.
    """
    with _mapped(path) as data:
        return Blobs.named_in(data)


@contextmanager
def _mapped(path: Path) -> Iterator[Any]:
    """The bytes of a file, of which those are in memory that are looked at."""
    with path.open("rb") as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # it is empty
            yield file.read()
            return
        with data:
            yield data
