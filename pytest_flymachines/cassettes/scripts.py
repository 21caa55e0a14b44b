"""Commands as the runner takes them: shell text, in which variables stand before the words.

See `_script` in `sandbox/api_processes.py`, which writes it.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from pytest_flymachines.cassettes.volatile import SECRET_NAME
from pytest_flymachines.sandbox.runner import quote

__all__ = ["secret_variables", "without_secret_variables"]

_WORD = rb"(?:'(?:[^']|'\\'')*'|[A-Za-z0-9_@%+=:,./-]+)"
_VARIABLES = re.compile(rb"(?<= _fly env -- )(?:%b )+" % _WORD)
_VARIABLE = re.compile(rb"(%b) " % _WORD)
_PAIR = re.compile(rb"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)


def secret_variables(script: bytes) -> dict[str, bytes]:
    """Values of variables whose names say that they are secret."""
    found: dict[str, bytes] = {}

    def note(name: str, value: bytes) -> bytes:
        found[name] = value
        return value

    _changed(script, note)
    return found


def without_secret_variables(script: bytes) -> bytes:
    """The same text with the names of such variables in place of their values."""
    return _changed(script, lambda name, _: f"<{name}>".encode())


def _changed(script: bytes, change: Callable[[str, bytes], bytes]) -> bytes:
    if not (variables := _VARIABLES.search(script)):
        return script
    at = variables.start()
    pieces = [script[:at]]
    for word in _VARIABLE.finditer(script, at, variables.end()):
        plain = word[1]
        if plain.startswith(b"'"):
            plain = plain[1:-1].replace(b"'\\''", b"'")
        pair = _PAIR.fullmatch(plain)
        if pair is None:
            break
        name, at = pair[1].decode(), word.end()
        if SECRET_NAME.search(name):
            pieces.append(quote(b"%b=%b" % (pair[1], change(name, pair[2]))) + b" ")
        else:
            pieces.append(word[0])
    return b"".join([*pieces, script[at:]])
