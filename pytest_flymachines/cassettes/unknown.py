"""Requests that differ from recorded ones only where a secret stood.

A recording has placeholders for secrets, and a replay puts the same ones in its requests, if it
knows the secrets. It may not: where somebody replays the token of who recorded is not set, and
what one test sends may be known for a secret by what another test does.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Collection
from urllib.parse import unquote

from pytest_flymachines.cassettes.jsons import json_value
from pytest_flymachines.cassettes.meaning import Meaning
from pytest_flymachines.cassettes.spelling import PLACEHOLDER, without_padding
from pytest_flymachines.cassettes.volatile import SECRET_NAME

__all__ = ["names_in", "same_but_for_secrets", "same_but_for_secrets_at_length"]

# where a secret is too short for its name stand stars alone, as many as it had bytes
_HIDDEN = re.compile(r"<([A-Za-z_][A-Za-z0-9_ .-]*)>|\*{8,}")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{4,}={0,2}")
# within one text of JSON, and within a path or the value in a query
_IN_JSON = r'(?:[^"\\]|\\.)+?'
_IN_LINE = r"[^?&\s]+?"
_IN_TEXT = ".+?"


def same_but_for_secrets(recorded: Meaning, asked: Meaning, names: Collection[str] = ()) -> bool:
    """Whether a request is the recorded one with other values in the places of its secrets.

    Args:
        recorded: What was asked then.
        asked: What is asked now.
        names: Of the secrets that have placeholders in what was asked then.
    """
    return _fits(recorded.line, asked.line, names, _IN_LINE) and _fits(
        recorded.body, asked.body, names, _in_body(recorded.body)
    )


def _in_body(body: str) -> str:
    is_json = json_value(body.encode("utf-8", "surrogatepass")) is not None
    return _IN_JSON if is_json else _IN_TEXT


def same_but_for_secrets_at_length(recorded: Meaning, asked: Meaning, uri: str) -> bool:
    """As `same_but_for_secrets`, for meanings at length: also within words of base64.

    Args:
        recorded: What was asked then, at length.
        asked: What is asked now, at length.
        uri: Where it was asked then.
    """
    one, other = (_plain(means) for means in (recorded, asked))
    names = names_in(uri, *one)
    one, other = (Meaning(*map(without_padding, means)) for means in (one, other))
    if not any(_HIDDEN.search(text) for text in one):
        return False
    return _fits(one.line, other.line, names, _IN_TEXT) and _fits(
        one.body, other.body, names, _in_body(one.body)
    )


def _plain(means: Meaning) -> Meaning:
    return Meaning(*(_BASE64.sub(_decoded, text) for text in (unquote(means.line), means.body)))


def _decoded(word: re.Match[str]) -> str:
    """The text in a word of base64, as it stands in JSON; any other word as it is."""
    try:
        text = b64decode(word[0], validate=True).decode()
    except ValueError:
        return word[0]
    if not text.replace("\n", "").isprintable():
        return word[0]
    return f"base64 {json.dumps(text, ensure_ascii=False)[1:-1]}"


def _fits(recorded: str, asked: str, names: Collection[str], hidden: str) -> bool:
    if recorded == asked:
        return True
    pattern, groups, at = "", dict[str, str](), 0
    for match in _HIDDEN.finditer(recorded):
        name = match[1]
        if name is not None and name not in names and not SECRET_NAME.search(name):
            continue
        pattern += re.escape(recorded[at : match.start()])
        at = match.end()
        if name is None:
            pattern += f"{hidden[:-2]}{{{len(match[0])}}}"
        elif name in groups:  # one secret has one value
            pattern += f"(?P={groups[name]})"
        else:
            groups[name] = f"secret{len(groups)}"
            pattern += f"(?P<{groups[name]}>{hidden})"
    return bool(at) and bool(re.fullmatch(pattern + re.escape(recorded[at:]), asked, re.DOTALL))


def names_in(*texts: str) -> set[str]:
    """Names of the secrets that have placeholders in texts as they are recorded."""
    return {match[1] for text in texts for match in PLACEHOLDER.finditer(text)}
