"""What several fields of a config have in common: how they are checked and refused."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable

from pytest_flymachines.emulator.answers import Problem
from pytest_flymachines.emulator.config import File

__all__ = ["absolute", "files", "go_list", "invalid", "one_of", "port"]

MAX_FILES = 1000


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


def files(where: str, given: list[File]) -> None:
    """Refuse files without a place or a content."""
    if len(given) > MAX_FILES:
        raise invalid(where, f"cannot exceed {MAX_FILES} files")
    for index, file in enumerate(given):
        at = f"{where}[{index}]"
        if not file.guest_path.startswith("/"):
            raise invalid(f"{at}.guest_path", "must be an absolute path")
        if file.image_config:
            raise invalid(f"{at}.image_config", "is not supported by this emulator")
        if file.raw_value and file.secret_name:
            raise invalid(at, "only one of raw_value and secret_name can be set")
        try:
            base64.b64decode(file.raw_value or "", validate=True)
        except (binascii.Error, ValueError):
            raise invalid(f"{at}.raw_value", "must be base64") from None


def go_list(values: Iterable[object]) -> str:
    """Values as Go prints a slice."""
    return "[" + " ".join(str(value) for value in values) + "]"
