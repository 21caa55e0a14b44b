"""Cassette files: vcrpy's YAML with a header, laid out for people, written whole or not at all.

A file is an ordinary vcrpy cassette (https://vcrpy.readthedocs.io), which vcrpy itself can
load. Beside vcrpy's fields it has `recording`, the header, and in each response `recorded`:
when the request was sent, how long its answer took, and how its body was laid out.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import yaml
from vcr.persisters.filesystem import CassetteNotFoundError
from vcr.request import Request
from vcr.serialize import deserialize, serialize
from vcr.serializers import yamlserializer

from pytest_flymachines.cassettes.bodies import Blobs, write_whole
from pytest_flymachines.cassettes.jsons import from_text, to_text
from pytest_flymachines.cassettes.kept import LARGEST_JSON, Kept, whole
from pytest_flymachines.cassettes.leaks import leaks, leaks_in_header
from pytest_flymachines.cassettes.locks import saving
from pytest_flymachines.cassettes.reading import read_yaml
from pytest_flymachines.cassettes.scrub import Scrubber
from pytest_flymachines.errors import CassetteError

__all__ = ["FORMAT", "NOTES", "OLDEST_FORMAT", "Persister", "Serializer", "check_format"]

FORMAT = 1
OLDEST_FORMAT = 1
_HEADER = "recording"
#: What it was called before the first release.
_OLD_HEADER = "metadata"
NOTES = "recorded"
_MANY = 4
_THREADS = 3
_UNLAYABLE = frozenset("\r\x85\u2028\u2029\ufeff")


class _Fixture(msgspec.Struct, forbid_unknown_fields=True):
    """Facts of a fixture, as `CassetteKey.fixture` takes them."""

    name: str
    scope: str
    node: str = ""
    base: str = ""
    param: str = ""


class _Header(msgspec.Struct):
    """What of a header is relied on."""

    mode: str = ""
    run: str = ""
    test: str = ""
    sandbox: str = ""
    machine: str = ""
    fixture: _Fixture | None = None
    machines: dict[str, dict[str, str]] = {}


class Serializer:
    """vcrpy's YAML serializer, with the header and the layout of ours.

    Attributes:
        header: What the file that was read last says of itself, or what to write.
    """

    def __init__(self, header: dict[str, Any] | None = None) -> None:
        self.header = header or {}

    def deserialize(self, text: str) -> dict[str, Any]:
        """The data of a cassette."""
        data = read_yaml(text)
        if not isinstance(data, dict) or not isinstance(data.get("interactions"), list):
            raise ValueError("it is no vcrpy cassette: it has no list `interactions`")
        old = data.pop(_OLD_HEADER, None)
        header = data.pop(_HEADER, None) or (old if _is_header(old) else None) or {}
        try:
            msgspec.convert(header, _Header)
        except msgspec.ValidationError as error:
            raise ValueError(
                f"`recording`, which says what it is of, is damaged: {error}"
            ) from error
        self.header = header
        return data

    def serialize(self, data: dict[str, Any]) -> str:
        """The text of a cassette, with the same order of keys every time."""
        ordered = {
            "version": data["version"],
            _HEADER: self.header,
            "interactions": [_ordered(item) for item in data["interactions"]],
        }
        text = _dump(ordered, _Dumper)
        # the emitter's block style is there for people; it must never change what is said
        same = yamlserializer.deserialize(text) == ordered == read_yaml(text)
        return text if same else _dump(ordered, _NoAliases)


class Persister:
    """Reads and writes cassettes, as vcrpy asks its persisters to.

    Args:
        blobs: Where large bodies are.
        scrubber: What must not be written.
    """

    def __init__(self, blobs: Blobs, scrubber: Scrubber) -> None:
        self._blobs = blobs
        self._scrubber = scrubber

    def load_cassette(
        self, path: str | Path, serializer: Serializer
    ) -> tuple[list[Request], list[dict[str, Any]]]:
        """Requests and responses of a file.

        Raises:
            CassetteNotFoundError: There is none.
            CassetteError: It cannot be read, or was written by a version that is too new.
        """
        try:
            text = Path(path).read_bytes().decode()
        except FileNotFoundError:
            raise CassetteNotFoundError from None
        except (OSError, UnicodeDecodeError) as error:
            raise CassetteError(f"{path} cannot be read: {error}") from error
        try:
            requests, responses = deserialize(text, serializer)[:2]
            for response in responses:
                notes = response.get(NOTES) or {}
                body = response["body"]
                body["string"] = from_text(
                    self._blobs.get(body["string"] or b""), notes.get("layout", "")
                )
        except CassetteError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
            raise CassetteError(f"{path} is not a cassette that can be read: {error}") from error
        check_format(path, serializer.header)
        return requests, responses

    def request_body(self, request: Request) -> bytes:
        """The body of a recorded request, also a large one."""
        return self._blobs.get(request.body or b"")

    def save_cassette(
        self, path: str | Path, cassette: dict[str, Any], serializer: Serializer
    ) -> None:
        """Write a file whole.

        Raises:
            CassetteError: A secret still stands in it, or the disk is full.
        """
        named = leaks_in_header(serializer.header, self._scrubber)
        self._refuse(path, named, serializer.header)
        self._refuse(path, leaks(cassette["requests"], cassette["responses"], self._scrubber))
        with saving(self._blobs.directory.parent):
            self._write(path, cassette, serializer)

    def _write(self, path: str | Path, cassette: dict[str, Any], serializer: Serializer) -> None:
        for request in cassette["requests"]:
            request.body = self._laid_out(request.body)[0] or None
        bodies = [response["body"]["string"] for response in cassette["responses"]]
        for response, (body, layout) in zip(
            cassette["responses"], self._all_laid_out(bodies), strict=True
        ):
            response["body"]["string"] = body
            if layout:
                response.setdefault(NOTES, {})["layout"] = layout
        data = serialize(cassette, serializer).encode()
        self._refuse(path, [f"{name} in the file" for name in sorted(self._scrubber.find(data))])
        write_whole(Path(path), [data])

    def _all_laid_out(self, bodies: list[bytes | Kept]) -> Iterable[tuple[bytes, str]]:
        """As `_laid_out`; large ones side by side, as others can work while one is compressed."""
        if sum(isinstance(body, Kept) for body in bodies) < _MANY:
            return map(self._laid_out, bodies)
        with ThreadPoolExecutor(_THREADS) as pool:
            return list(pool.map(self._laid_out, bodies))

    def _laid_out(self, body: bytes | Kept | None) -> tuple[bytes, str]:
        """What stands for a body in the file, and a note of how to get it back."""
        if isinstance(body, Kept):
            if body.size > LARGEST_JSON or body.part(0, 1) not in (b"{", b"["):
                return self._blobs.put(body), ""
            body = whole(body)
        text, layout = to_text(body or b"")
        return self._blobs.put(text), layout

    def _refuse(
        self, path: str | Path, found: list[str], header: dict[str, Any] | None = None
    ) -> None:
        """Raise if something was found; with a header, if it was found there."""
        if not found:
            return
        told, advice = str(path), "Keep it out of what the test sends and prints, "
        if header is not None:  # so the name of the file has it, too, perhaps with other signs
            told = "The cassette"
            if "test" in header:
                told += f" of {self._scrubber.text(str(header['test']))}"
            advice = "Give a parameter that holds it another id, as in "
            advice += "pytest.param(value, id='token'), "
        raise CassetteError(
            f"{told} was not written, because a secret would stand in it: {'; '.join(found)}. "
            f"{advice}or record the test elsewhere."
        )


def _is_header(value: Any) -> bool:
    return isinstance(value, dict) and "recorded_by" in value


def check_format(path: str | Path, header: dict[str, Any]) -> None:
    """Refuse what this version does not understand."""
    written = header.get("format", OLDEST_FORMAT)
    if not isinstance(written, int) or not OLDEST_FORMAT <= written <= FORMAT:
        raise CassetteError(
            f"{path} has format {written!r}, and this version reads {OLDEST_FORMAT} to {FORMAT}: "
            "install the pytest-flymachines that wrote it "
            f"({header.get('recorded_by', 'unknown')}), or record it again with --fly-record=all"
        )


def _ordered(item: dict[str, Any]) -> dict[str, Any]:
    """One interaction with its keys in the order in which they read best."""
    request, response = item["request"], item["response"]
    return {
        "request": {name: request[name] for name in ("method", "uri", "headers", "body")},
        "response": {
            name: response[name]
            for name in ("status", "headers", "body", NOTES)
            if name in response
        },
    }


def _dump(data: dict[str, Any], dumper: type) -> str:
    text: str = yaml.dump(data, Dumper=dumper, sort_keys=False, allow_unicode=True, width=1 << 30)
    return text


_PlainDumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _NoAliases(_PlainDumper):  # type: ignore[misc]  # the base is chosen at run time
    """Equal things are written out each time, because nobody likes to look them up."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - named by PyYAML
        return True


class _Dumper(_NoAliases):
    """Text of several lines as a block, so that a diff shows the line that changed."""


def _text(dumper: Any, text: str) -> Any:
    block = "\n" in text and not _UNLAYABLE.intersection(text)
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if block else None)


_Dumper.add_representer(str, _text)
