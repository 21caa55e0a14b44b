"""What was written before it was known for a secret: taken out again at the end of the run.

A variable that one test sets may have its value in what another test sent before, also in
another worker. Until the run ends nobody knows all secrets.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytest_flymachines.cassettes.bodies import Blobs
from pytest_flymachines.cassettes.catalog import Catalog, Entry
from pytest_flymachines.cassettes.claims import Seen
from pytest_flymachines.cassettes.cleaning import clean
from pytest_flymachines.cassettes.files import NOTES, Persister, Serializer
from pytest_flymachines.cassettes.glances import blobs_named_in
from pytest_flymachines.cassettes.keys import BLOBS
from pytest_flymachines.cassettes.leaks import leaks, leaks_in_header
from pytest_flymachines.cassettes.locks import alone
from pytest_flymachines.cassettes.scrub import Scrubber
from pytest_flymachines.errors import CassetteError

__all__ = ["look_again"]


def look_again(directory: Path, processes: Sequence[Seen]) -> list[str]:
    """Take out of the cassettes of a run what was known for a secret too late.

    Args:
        directory: Of the cassettes.
        processes: Those that recorded.

    Returns:
        What to tell of cassettes that had to be deleted.
    """
    everything = {value: name for seen in processes for name, value in seen.learnt}
    catalog, told = Catalog(directory), []
    for seen in processes:
        for name, count in seen.written:
            known = {value for _, value in seen.learnt[:count]}
            if late := {value: each for value, each in everything.items() if value not in known}:
                told += _cleaned(catalog, Path(name), late)
    return told


def _cleaned(catalog: Catalog, path: Path, late: dict[bytes, str]) -> list[str]:
    scrubber = Scrubber(environ={})
    for value, name in late.items():
        scrubber.add(name, value.decode("utf-8", "surrogateescape"), shortest=1)
    entry = catalog.read(path)
    if entry.problem:
        return []
    found = leaks_in_header(entry.header, scrubber)
    found += leaks(entry.requests, entry.responses, scrubber)
    if not found:
        return []
    bodies = blobs_named_in(path)
    told = []
    try:
        _write(catalog.directory, entry, scrubber)
    except CassetteError:
        path.unlink(missing_ok=True)
        told.append(
            f"{scrubber.text(str(path))} was deleted: what another test made known for a "
            f"secret stood in it, and could not be taken out ({'; '.join(found)}). Name the "
            "secret in `fly_scrub`, or keep it out of what the test sends and prints, and "
            "record the test again."
        )
    try:
        with alone(catalog.directory):
            for body in catalog.left_over(catalog.paths()):
                if body.name in bodies:
                    body.unlink(missing_ok=True)
    except (OSError, CassetteError) as error:
        told.append(
            f"{catalog.directory / BLOBS} may hold a secret in a body that no cassette needs any "
            f"more, which was not deleted: {error}. `pytest-flymachines cassettes prune` does it."
        )
    return told


def _write(directory: Path, entry: Entry, scrubber: Scrubber) -> None:
    for response in entry.responses:
        response.get(NOTES, {}).pop("layout", None)
    exchanges: list[Any] = list(zip(entry.requests, entry.responses, strict=True))
    clean(exchanges, scrubber)
    cassette = {"requests": entry.requests, "responses": entry.responses}
    persister = Persister(Blobs(directory / BLOBS), scrubber)
    persister.save_cassette(entry.path, cassette, Serializer(entry.header))
