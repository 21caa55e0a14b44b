"""The last check before a recording is written: where secrets stand in it, without telling them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from vcr.request import Request

from pytest_flymachines.cassettes.carriers import BASE64
from pytest_flymachines.cassettes.kept import Kept, chunks
from pytest_flymachines.cassettes.places import ANSWERS, TREES, bodies
from pytest_flymachines.cassettes.scrub import Scrubber
from pytest_flymachines.cassettes.streams import Stream, Streams
from pytest_flymachines.cassettes.texts import BETWEEN

__all__ = ["leaks", "leaks_in_header"]

# pieces of a file in the script that is sent to a machine without tar; see `sandbox/tarless.py`
_ECHOED = re.compile(rb"echo ([A-Za-z0-9+/]+={0,2})\|base64 -d")


def leaks(
    requests: Iterable[Request], responses: Iterable[dict[str, Any]], scrubber: Scrubber
) -> list[str]:
    """Where secrets stand in recorded interactions: in each part, and in streams over several."""
    found: list[str] = []
    streams = Streams()
    for number, exchange in enumerate(zip(requests, responses, strict=True), 1):
        for where, value in _sides(number, *exchange):
            if names := {name for leaf in _leaves(value) for name in scrubber.scan(leaf)}:
                found.append(f"{', '.join(sorted(names))} in {where}")
        for side, body in zip(("request", "answer"), bodies(number, exchange), strict=True):
            texts: list[bytes] = []
            for piece in body.pieces():
                data = piece.raw if isinstance(piece.raw, Kept) else piece.get()
                if piece.place is not None:
                    streams.add(piece.place, f"{side} {number}", data)
                elif isinstance(body.old, Kept) and (names := scrubber.scan(chunks(data))):
                    found.append(f"{', '.join(sorted(names))} in {side} {number}, body")
                elif not isinstance(body.old, Kept) and b"\\" in body.old:
                    texts.append(piece.get())
            # as they are read, in which more can be seen than in how JSON writes them
            if texts and (names := scrubber.scan((BETWEEN.join(texts),))):
                found.append(f"{', '.join(sorted(names))} in {side} {number}, body")
    if not found:
        found += [told for name, stream in streams if (told := _in_stream(name, stream, scrubber))]
    return found


def leaks_in_header(header: dict[str, Any], scrubber: Scrubber) -> list[str]:
    """Where secrets stand in what a cassette says of itself; its file is called by that, too."""
    found = []
    for field, value in header.items():
        names = {name for leaf in _leaves(value) for name in scrubber.scan(leaf)}
        if names:
            where = "the name of the test" if field == "test" else f"recording.{field}"
            found.append(f"{', '.join(sorted(names))} in {where}")
    return found


def _in_stream(name: tuple[Any, ...], stream: Stream, scrubber: Scrubber) -> str:
    names = scrubber.scan(stream.content)
    if name[0] == TREES:
        names |= scrubber.scan(_echoed(stream.content))
    if not names:
        return ""
    where = ", ".join(str(part.piece) for part in stream.parts)
    many = "cut in pieces, " if len(stream.parts) > 1 else ""
    stays = "" if name[0] == ANSWERS else " (what is sent is compared, so it cannot be taken out)"
    return f"{', '.join(sorted(names))}, {many}in {where}{stays if many else ''}"


def _echoed(content: Iterable[bytes]) -> Iterator[bytes]:
    script = b"".join(content)
    if b"|base64 -d" in script:
        yield from (BASE64.decode(match[1]) for match in _ECHOED.finditer(script))


def _sides(number: int, request: Request, response: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    yield f"request {number}, URL", request.uri
    yield f"request {number}, headers", dict(request.headers)
    yield f"request {number}, body", request.body
    for name, value in response.items():
        yield f"answer {number}, {name}", value


def _leaves(value: Any) -> Iterator[Iterable[bytes]]:
    """Every text in a piece of a cassette."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield (str(name).encode(),)
            yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    elif value is not None and not isinstance(value, Kept):  # looked at text by text
        yield (value if isinstance(value, bytes) else str(value).encode(),)
