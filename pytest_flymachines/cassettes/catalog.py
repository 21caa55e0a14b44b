"""What lies in a directory of cassettes: files, their owners, and what is wrong with them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vcr.cassette import Cassette
from vcr.record_mode import RecordMode

from pytest_flymachines.cassettes.bodies import Blobs
from pytest_flymachines.cassettes.files import Persister, Serializer
from pytest_flymachines.cassettes.glances import blobs_named_in, glance
from pytest_flymachines.cassettes.keys import BLOBS, CassetteKey
from pytest_flymachines.cassettes.leaks import leaks, leaks_in_header
from pytest_flymachines.cassettes.scrub import Scrubber
from pytest_flymachines.errors import CassetteError

__all__ = ["Catalog", "Entry", "Summary", "suspicious"]

# Tokens that say by their form what they are; who checks need not know their values.
_TOKENS = {
    "a Fly token": rb"\b(?:fm1r|fm1a|fm2|fo1)_[A-Za-z0-9+/=_-]{16,}",
    "a GitHub token": rb"\b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{30,})",
    "a GitLab token": rb"\bglpat-[A-Za-z0-9_-]{16,}",
    "an AWS key": rb"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    "a Slack token": rb"\bxox[abprs]-[A-Za-z0-9-]{10,}",
    "a private key": rb"-----BEGIN [A-Z ]*PRIVATE KEY-----",
}


@dataclass(frozen=True)
class Entry:
    """One cassette.

    Attributes:
        path: The file.
        header: What it says of itself.
        requests: vcrpy's requests.
        responses: vcrpy's responses, with bodies from `blobs`.
        problem: Why it cannot be read; empty if it can.
    """

    path: Path
    header: dict[str, Any]
    requests: list[Any]
    responses: list[dict[str, Any]]
    problem: str = ""

    @property
    def owner(self) -> str:
        """The test, fixture or spec, as people call it."""
        header = self.header
        if "fixture" in header:
            facts = dict(header["fixture"])
            return CassetteKey.fixture(facts.pop("scope", ""), facts.pop("name", ""), **facts).label
        return str(header.get("test") or f"sandbox {header.get('sandbox', '')}".strip())

    @property
    def machines(self) -> set[str]:
        """Aliases of the machines that it is about."""
        return set(self.header.get("machines") or {})


@dataclass(frozen=True)
class Summary:
    """What a listing shows of a cassette.

    Attributes:
        entry: It, without requests and responses.
        requests: How many requests it holds.
        size: Bytes on the disk, with the large bodies that it refers to.
    """

    entry: Entry
    requests: int
    size: int


class Catalog:
    """A directory of cassettes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._persister = Persister(Blobs(directory / BLOBS), Scrubber(environ={}))

    def paths(self) -> list[Path]:
        """Every cassette, sorted; vcrpy's own, for the user's other traffic, are not among them."""
        found = (path for path in self.directory.rglob("*.yaml") if not path.name.startswith("."))
        files = (path for path in found if path.parent.name != BLOBS and path.is_file())
        return sorted(path for path in files if _is_ours(path))

    def read(self, path: Path) -> Entry:
        """One cassette, also one that cannot be read."""
        serializer = Serializer()
        if path.exists() and not path.is_file():  # to read a FIFO is to wait for ever
            return Entry(path, {}, [], [], f"{path} cannot be read: it is no file")
        try:
            tape = Cassette.load(
                path=str(path),
                serializer=serializer,
                persister=self._persister,
                record_mode=RecordMode.NONE,
            )
            for request in tape.requests:
                request.body = self._persister.request_body(request)
        except CassetteError as error:
            return Entry(path, dict(serializer.header), [], [], str(error))
        return Entry(path, dict(serializer.header), tape.requests, tape.responses)

    def entries(self, paths: Iterable[Path] | None = None) -> Iterator[Entry]:
        """Cassettes, one at a time; all of them by default."""
        for path in self.paths() if paths is None else paths:
            yield self.read(path)

    def glance(self, path: Path) -> Entry:
        """What a cassette says of itself, without what was requested."""
        return self.summary(path).entry

    def summary(self, path: Path) -> Summary:
        """One line of a listing; what is damaged beneath its header is not noticed."""
        try:
            seen = glance(path)
            if seen is None:
                entry = self.read(path)
                count, blobs = len(entry.requests), blobs_named_in(path)
            else:
                entry, count, blobs = Entry(path, seen.header, [], []), seen.requests, seen.blobs
        except CassetteError as error:
            entry, count, blobs = Entry(path, {}, [], [], str(error)), 0, set()
        except OSError as error:
            entry, count, blobs = (
                Entry(path, {}, [], [], f"{path} cannot be read: {error}"),
                0,
                set(),
            )
        size = 0
        for file in (path, *(self.directory / BLOBS / digest for digest in blobs)):
            with suppress(OSError):
                size += file.stat().st_size
        return Summary(entry, count, size)

    def left_over(self, kept: Iterable[Path]) -> list[Path]:
        """Large bodies that no kept cassette refers to.

        While somebody records, these may be what that is about to need: see `alone`.

        Raises:
            CassetteError: One of the kept cannot be read.
        """
        try:
            named = {digest for path in kept for digest in blobs_named_in(path)}
        except OSError as error:
            raise CassetteError(
                f"it is not known which large bodies are needed: {error}"
            ) from error
        blobs = (self.directory / BLOBS).glob("*")
        return sorted(path for path in blobs if path.name not in named and path.name[0] != ".")


def suspicious(entry: Entry, scrubber: Scrubber) -> list[str]:
    """Where secrets stand in a cassette, known ones and such as can be told by their form."""
    found = leaks_in_header(entry.header, scrubber)
    found += leaks(entry.requests, entry.responses, scrubber)
    if names := scrubber.find(os.fsencode(entry.path)):
        found.append(f"{', '.join(sorted(names))} in the name of the file")
    data = entry.path.read_bytes()
    bodies = [response["body"]["string"] or b"" for response in entry.responses]
    bodies += [request.body or b"" for request in entry.requests]
    for name, pattern in _TOKENS.items():
        if any(re.search(pattern, text) for text in (data, *bodies)):
            found.append(f"what looks like {name}")
    if not found and (names := scrubber.find(data)):
        found.append(f"{', '.join(sorted(names))} in the text of the file")
    return found


def _is_ours(path: Path) -> bool:
    """Whether the header is there, or the file is where ours are."""
    try:
        with path.open("rb") as file:
            head = file.read(400)
    except OSError:
        return True  # so that it is named
    folder = path.parent.name
    return b"pytest-flymachines" in head or "." in folder or folder in ("sandboxes", "session")
