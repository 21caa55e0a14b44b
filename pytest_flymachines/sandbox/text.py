"""Between what users write and the bytes that the machine's kernel sees."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import TypeAlias

__all__ = [
    "Argument",
    "CommandLine",
    "PathArg",
    "argv_of",
    "check_env",
    "decode_name",
    "encode_data",
    "encode_path",
    "shown_command",
]

PathArg: TypeAlias = str | bytes | PurePath
Argument: TypeAlias = str | bytes | PurePath
CommandLine: TypeAlias = str | Sequence[Argument]


def encode_text(value: str | bytes | PurePath) -> bytes:
    """Bytes of a name or argument; the inverse of `decode_name`."""
    if isinstance(value, bytes):
        return value
    try:
        return str(value).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise ValueError(
            f"{value!r} has a surrogate that stands for no byte; give bytes, or text that can be "
            "written as UTF-8"
        ) from None


def decode_name(value: bytes) -> str:
    """A name as text; bytes that are not UTF-8 become lone surrogates, as in `os.fsdecode`."""
    return value.decode("utf-8", "surrogateescape")


def encode_path(path: PathArg) -> bytes:
    """A path for the channel.

    Raises:
        ValueError: It is empty or has a NUL.
        TypeError: It is no path.
    """
    if not isinstance(path, str | bytes | PurePath):
        raise TypeError(f"path={path!r}: expected a path as str, bytes or PurePath")
    encoded = encode_text(path)
    if not encoded or b"\0" in encoded:
        raise ValueError(f"{path!r} is no path: it is empty or has a NUL byte")
    return encoded


def encode_data(data: bytes | bytearray | memoryview | str) -> bytes:
    """Content of a file or of stdin; text as UTF-8.

    Raises:
        TypeError: It is neither text nor bytes.
        ValueError: It is text that cannot be written.
    """
    if isinstance(data, str):
        return encode_text(data)
    if not isinstance(data, bytes | bytearray | memoryview):  # of a number, bytes makes zeros
        raise TypeError(f"expected text or bytes, not {data!r}")
    return bytes(data)


def argv_of(command: CommandLine) -> list[bytes]:
    """A shell command line or an argv as the kernel gets it.

    Raises:
        ValueError: It is empty or has a NUL.
        TypeError: It is no command, or an argument is none.
    """
    given: object = command
    if isinstance(given, bytes | bytearray) or not isinstance(given, Sequence):
        raise TypeError(
            f"command={command!r}: expected a str for the shell, or a list of arguments"
        )
    if isinstance(command, str):
        argv = [b"/bin/sh", b"-c", encode_text(command)]
    else:
        for argument in command:
            if not isinstance(argument, str | bytes | PurePath | int):
                raise TypeError(
                    f"argument {argument!r} of command {command!r}: expected str, bytes or a path"
                )
        argv = [encode_text(a) for a in command]
    if not argv or not command:
        raise ValueError(f"{command!r} is an empty command")
    if any(b"\0" in a for a in argv):
        raise ValueError(f"{command!r} has a NUL byte, which no argument can hold")
    return argv


def shown_command(command: CommandLine) -> str | list[str]:
    """The command as results and errors keep it."""
    return command if isinstance(command, str) else [decode_name(encode_text(a)) for a in command]


def command_text(command: CommandLine) -> str:
    """The command on one line, for people."""
    shown = shown_command(command)
    return shown if isinstance(shown, str) else shlex.join(shown)


def check_env(env: Mapping[str, str] | None) -> dict[str, str]:
    """A copy of the variables.

    Raises:
        ValueError: A name is empty or has `=`, or there is a NUL.
        TypeError: It is no mapping of text to text.
    """
    if env is not None and not isinstance(env, Mapping):
        raise TypeError(f"env={env!r}: expected a dict of names and values")
    for name, value in (env or {}).items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"env: {name!r}: {value!r}: expected names and values of type str")
        if not name or "=" in name or "\0" in name + value:
            raise ValueError(
                f"env: {name!r}={value!r} is no environment variable: expected a name that "
                "is not empty and has no '=', and no NUL in either"
            )
        for text in (name, value):
            encode_text(text)
    return dict(env or {})
