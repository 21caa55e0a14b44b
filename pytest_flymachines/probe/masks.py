"""A report that anybody may see: nothing in it tells whose account it was made with.

Tokens and the like are the scrubber's, as for cassettes. Beside them go names and numbers of
the organization and the app, e-mail and IP addresses, ids of requests and tokens.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping
from typing import Any

from pytest_flymachines.cassettes.scrub import Scrubber

__all__ = ["Leak", "Mask"]

_EMAIL = re.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+")
_IPV4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.])")
_IPV6 = re.compile(
    r"(?<![\w:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?:\.\d{1,3}){0,3}(?![\w:])"
)
_REQUEST_ID = re.compile(r"\b[0-9A-HJKMNP-TV-Z]{26}-[a-z]{3}\b")
_COOKIE = re.compile(r"(fly_flaps_affinity=)[^;\"\s]+")

#: Fields whose values tell who somebody is, whatever they are.
_FIELDS = re.compile(
    r'("(?:internal_?[nN]umeric_?[iI]d|organization|org_slug|owner|user|email|token_id|token'
    r'|source_machine_id|nonce|fly-src|set-cookie|fly-trace-id|fly-span-id)"\s*:\s*)'
    r'("(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?)'
)


class Leak(Exception):
    """Something secret is still in a text; the message names it, not its value."""


class Mask:
    """Knows what is secret about one probe."""

    def __init__(self, token: str, environ: Mapping[str, str]) -> None:
        self._scrubber = Scrubber(environ=environ)
        self._scrubber.add_token("token", token)
        self._names: dict[str, str] = {}

    def hide(self, label: str, value: object) -> None:
        """Keep a name or a number out of every report."""
        text = str(value or "").strip()
        if text:
            self._names[text] = f"<{label}>"

    def text(self, text: str) -> str:
        """The text without secrets."""
        text = _FIELDS.sub(lambda found: f'{found[1]}"<masked>"', text)
        text = _EMAIL.sub("<e-mail>", text)  # before a name within one is masked and hides it
        for pattern, replacement in self._patterns():
            text = pattern.sub(replacement, text)
        text = _REQUEST_ID.sub("<request id>", text)
        text = _COOKIE.sub(r"\1<masked>", text)
        text = _IPV4.sub("<ip>", text)
        text = _IPV6.sub(lambda found: "<ip>" if _is_ip(found[0]) else found[0], text)
        return self._scrubber.text(text)

    def value(self, value: Any) -> Any:
        """A JSON value without secrets, keys included."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(key)): self.value(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(item) for item in value]
        return self._number(value) if isinstance(value, int | float) else value

    def check(self, text: str) -> None:
        """Look at a finished report once more.

        Raises:
            Leak: There is still something in it.
        """
        found = self._scrubber.find(text.encode())
        found |= {label for name, label in self._names.items() if _whole(name).search(text)}
        found |= {"e-mail"} if _EMAIL.search(text) else set()
        found |= {"ip"} if any(_is_ip(m[0]) for m in _IPV6.finditer(text)) else set()
        found |= {"ip"} if _IPV4.search(text) else set()
        if found:
            raise Leak(", ".join(sorted(found)))

    def _patterns(self) -> list[tuple[re.Pattern[str], str]]:
        longest = sorted(self._names.items(), key=lambda item: -len(item[0]))
        return [(_whole(name), label) for name, label in longest]

    def _number(self, value: float) -> Any:
        return self._names.get(str(value), value) if not isinstance(value, bool) else value


def _whole(name: str) -> re.Pattern[str]:
    """The name as it is or as JSON writes it, but not as a part of another word."""
    written = dict.fromkeys([name, json.dumps(name)[1:-1]])
    alternatives = "|".join(re.escape(spelling) for spelling in written)
    return re.compile(rf"(?<![A-Za-z0-9])(?:{alternatives})(?![A-Za-z0-9])")


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return len(text) > 2  # "::" stands for much
