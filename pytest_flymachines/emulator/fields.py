"""What several fields of a config have in common: how they are checked and refused."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping

from pytest_flymachines.emulator.answers import Problem
from pytest_flymachines.emulator.config import Container, File, Init, Process

__all__ = [
    "absolute",
    "environment",
    "files",
    "go_list",
    "image",
    "invalid",
    "name",
    "one_of",
    "port",
    "program",
    "words",
]

MAX_FILES = 1000
MAX_NAME = 255
MAX_PATH = 4095
MAX_IMAGE = 512  # A name of 255 characters, a tag of 128, a digest.


def invalid(field: str, what: str) -> Problem:
    """The refusal of a field, as flaps words it."""
    return Problem(400, f"invalid config.{field}, {what}")


def one_of(where: str, value: str, allowed: tuple[str, ...]) -> None:
    """Refuse any other value; an empty one is not told."""
    if value not in allowed:
        raise invalid(where, f"must be one of {go_list(name for name in allowed if name)}")


def port(where: str, number: int) -> None:
    """Refuse what is no port."""
    if not 1 <= number <= 65535:
        raise invalid(where, "must be between 1 and 65535")


def absolute(where: str, path: str) -> None:
    """Refuse a path that is not absolute, or the root itself."""
    if not path.startswith("/") or path == "/":
        raise invalid(where, "must be an absolute path")


def name(field: str, text: str) -> None:
    """Refuse a name of anything that is too long or cannot be printed; an empty one is none.

    Args:
        field: With `config.` before it, if it is in one.
        text: The name.
    """
    if len(text) > MAX_NAME or not text.isprintable():
        raise Problem(400, f"invalid {field}, must be at most {MAX_NAME} printable characters")


def words(where: str, given: Iterable[str] | None) -> None:
    """Refuse texts that no program can be started with."""
    if any("\0" in word for word in given or ()):
        raise invalid(where, "cannot have a null character")


def image(where: str, text: str) -> None:
    """Refuse a reference that no registry could have."""
    if len(text) > MAX_IMAGE or not text.isprintable() or " " in text:
        raise invalid(where, f"must be at most {MAX_IMAGE} printable characters without spaces")


def program(at: str, given: Process | Container | Init) -> None:
    """Refuse a command that cannot be executed, wherever it stands."""
    for field in ("exec", "entrypoint", "cmd"):
        words(f"{at}.{field}", getattr(given, field))


def environment(where: str, given: Mapping[str, str] | None) -> None:
    """Refuse variables that no program can be started with."""
    for key in given or {}:
        if not key or "=" in key:
            raise invalid(where, f"invalid name {key[:20]!r}")
        name(f"config.{where}", key)
    words(where, (given or {}).values())


def files(where: str, given: list[File]) -> None:
    """Refuse files without a place or a content."""
    if len(given) > MAX_FILES:
        raise invalid(where, f"cannot exceed {MAX_FILES} files")
    for index, file in enumerate(given):
        at = f"{where}[{index}]"
        if not file.guest_path.startswith("/"):
            raise invalid(f"{at}.guest_path", "must be an absolute path")
        too_long = any(len(part.encode()) > MAX_NAME for part in file.guest_path.split("/"))
        if too_long or len(file.guest_path.encode()) > MAX_PATH:
            raise invalid(f"{at}.guest_path", "is too long")
        words(f"{at}.guest_path", [file.guest_path])
        name(f"config.{at}.secret_name", file.secret_name or "")
        image(f"{at}.image_config", file.image_config or "")
        if sum(map(bool, (file.raw_value, file.secret_name, file.image_config))) > 1:
            raise invalid(at, "only one of raw_value, secret_name and image_config can be set")
        try:
            base64.b64decode(file.raw_value or "", validate=True)
        except (binascii.Error, ValueError):
            raise invalid(f"{at}.raw_value", "must be base64") from None


def go_list(values: Iterable[object]) -> str:
    """Values as Go prints a slice."""
    return "[" + " ".join(str(value) for value in values) + "]"
