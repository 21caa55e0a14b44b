"""What is secret in a run: from the environment, from the user, and from what is sent."""

from __future__ import annotations

import os
import re
from base64 import b64decode
from collections.abc import Iterable, Mapping
from contextlib import suppress
from urllib.parse import unquote

from pytest_flymachines.cassettes.spelling import Secret
from pytest_flymachines.cassettes.volatile import SECRET_NAME
from pytest_flymachines.common_values import SHORTEST, SHORTEST_NAMED, check_named, is_common
from pytest_flymachines.options import TOKEN_VARIABLES

__all__ = ["URL", "Known"]

# the longest way to write one character
_ESCAPE_BYTES = 12
_LONGEST_MARGIN = 4096

# of something that has a scheme and a host: in random bytes `://` stands now and then
URL = re.compile(
    rb"://(?:(?<=[A-Za-z][A-Za-z0-9+.-][A-Za-z0-9]://)|(?<=\bs3://)|(?<=\bws://))"
    rb"([^\x00-\x20\x7f/\"'<>]{1,1024})"  # with @ in it, as where a mail address is the user
    rb"(?=@(?:\[[0-9A-Fa-f:]|[A-Za-z0-9]\b|[A-Za-z0-9][A-Za-z0-9.-]))"
)
_KEY_LINE = re.compile(rb"^[A-Za-z0-9+/=_-]{32,}(?=\r?$)", re.MULTILINE)
_SCHEMES = re.compile(r"^(?:(?:bearer|flyv1|basic|token)\s+)+", re.IGNORECASE)


class Known:
    """The secret values of a run, each with its name.

    They come from the environment (Fly's tokens, and variables whose names say that they are
    secret), from what the user names, and from the `Authorization` of each request.
    """

    def __init__(
        self,
        named: Iterable[str] = (),
        environ: Mapping[str, str] | None = None,
        *,
        lenient: bool = False,
    ) -> None:
        """Take the secrets of the environment.

        Args:
            named: What the user names: a variable of the environment, or a value itself.
            environ: The environment; None takes this process's.
            lenient: Pass over what is named and cannot be taken for secret.

        Raises:
            SettingsError: What is named is too short or too common.
        """
        self._known: dict[bytes, Secret] = {}
        self._longest_first: list[Secret] | None = None
        environ = os.environ if environ is None else environ
        for name in TOKEN_VARIABLES:
            self.add_token(name, environ.get(name, ""))
        for name, value in environ.items():
            if SECRET_NAME.search(name) and not value.startswith("/"):
                self.add(name, value)
            elif "://" in value:
                self._add_passwords(name, value)
        for entry in named:
            self.add_named(entry, environ, lenient=lenient)
        self._given = len(self._known)

    def learnt(self) -> list[tuple[str, bytes]]:
        """Names and values of what was remembered since this was made, in this order."""
        return [(secret.name, secret.value) for secret in [*self._known.values()][self._given :]]

    def add(self, name: str, value: str, *, shortest: int = SHORTEST) -> None:
        """Remember a secret, and each line of a key that has several.

        Args:
            name: What it is called.
            value: The secret; what everybody uses is none.
            shortest: What has fewer bytes stands for too much.
        """
        data = value.strip().encode("utf-8", "surrogateescape")
        if len(data) < shortest or is_common(value):
            return
        # who prints a key may print a part of it: each of its lines is as secret
        lines = _KEY_LINE.findall(data if b"\n" in data else b"")
        for secret in (data, *lines, *_in_latin(data)):
            if secret not in self._known:
                self._known[secret] = Secret(secret, name)
                self._longest_first = None
                self._is_new()

    def add_named(
        self, entry: str, environ: Mapping[str, str] | None = None, *, lenient: bool = False
    ) -> None:
        """Remember what the user names.

        Args:
            entry: A variable of the environment, or a value itself; nothing, if it is empty.
            environ: The environment; None takes this process's.
            lenient: Pass over what cannot be taken for secret.

        Raises:
            SettingsError: It is too short or too common.
        """
        value = (os.environ if environ is None else environ).get(entry, entry)
        if not lenient:
            check_named(entry, value)
        self.add(entry if value != entry else "scrubbed", value, shortest=SHORTEST_NAMED)

    def add_token(self, name: str, value: str) -> None:
        """Remember a token, its parts, and both without the scheme that may stand before it.

        Fly's macaroons are several, joined by commas
        (https://github.com/superfly/fly-go/blob/main/tokens/tokens.go).
        """
        bare = _SCHEMES.sub("", value.strip())
        for part in (bare, *bare.split(",")):
            self.add(name, part)
        if value[:6].lower() == "basic ":
            with suppress(ValueError):  # of a name and a password, which is secret alone, too
                self.add(name, b64decode(bare).decode().partition(":")[2])

    def _add_passwords(self, name: str, value: str) -> None:
        """Remember the passwords in URLs, such as in DATABASEURL, as they are and as meant."""
        for match in URL.finditer(value.encode("utf-8", "surrogateescape")):
            user, colon, password = match[1].decode("utf-8", "surrogateescape").partition(":")
            if colon and user != password:
                self.add(name, password)
                self.add(name, unquote(password))

    def _is_new(self) -> None:
        """Forget what was found without the secrets known so far: there is another."""

    def _secrets(self) -> list[Secret]:
        """All that are known; the long ones first, of which others may be a part."""
        if self._longest_first is None:
            known = sorted(self._known.values(), key=lambda secret: -len(secret.value))
            self._longest_first = known
            values = b"".join(value for each in known for value in (each.value, *each.wide))
            self._bytes = bytes(sorted(set(values)))
            self._shortest = len(known[-1].value) if known else SHORTEST
            longest = len(known[0].value) if known else 0
            self._margin = min(_ESCAPE_BYTES * max(longest, 16), _LONGEST_MARGIN)
        return self._longest_first


def _in_latin(value: bytes) -> list[bytes]:
    """A value as programs write it that are older than UTF-8, if that is something else."""
    if not value.isascii():
        with suppress(UnicodeError):
            return [value.decode().encode("latin-1")]
    return []
