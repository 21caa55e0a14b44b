"""Reads the YAML of cassettes, several times as fast as vcrpy's own loader.

The files that we write have one layout: a key to a line, text of several lines in blocks, two
columns to a level. One pattern takes them apart. What says nothing new in most exchanges, such
as their headers, is taken apart once. Whatever looks different, such as what people wrote by
hand, goes to vcrpy's loader, so that this module needs to know no more of YAML.
"""

from __future__ import annotations

import base64
import functools
import re
from typing import Any

import yaml
from vcr.serializers import yamlserializer

__all__ = ["read_yaml"]

_LINE = re.compile(
    r"""
    ([ ]*) (-[ ])?                                              # indent, dash
    (?: ([A-Za-z_/][^\s:]*): (?:[ ]|(?=\n)) )?                  # key
    (?:
        ( '[^'\n]* (?:''[^'\n]*)* )' \n                         # quoted text
      | (!!binary[ ])? [|] ([-+]?) \n                           # what a block is, how it ends
        ( \1[ ][ ]\S.*\n (?: \1[ ][ ].*\n | \n )*+ )            # and its lines
      | ( (?: [\w./+(<$;=^~] | -(?=\S) )                        # plain words
          [^:\#\n]* (?: (?: :(?=\S) | (?<=\S)\# ) [^:\#\n]* )* (?<=\S)
        | \{\} | \[\] )? \n
    )
    | .+\n? | \n                                                # anything else
    """,
    re.VERBOSE,
)
_USUAL = bytes(range(0x20, 0x7F)) + b"\n"
# what YAML takes for the end of a line or for nothing, and what may not stand in it
_UNUSUAL = re.compile("[\t\r\x85\u2028\u2029\ufeff]")
_FORBIDDEN: Any = yaml.reader.Reader.NON_PRINTABLE

_WORDS = {"null": None, "~": None, "true": True, "false": False}
_NUMBER = frozenset("0123456789-+.")
_INTEGER = re.compile(r"0|[1-9][0-9]*")
_FRACTION = re.compile(r"[0-9]+\.[0-9]+")
_RESOLVERS: Any = yaml.SafeLoader.yaml_implicit_resolvers
# what YAML 1.1 takes for something else than text, beside numbers
_OTHER_WORDS = frozenset(
    form
    for word in ("yes", "no", "on", "off", "null", "true", "false")
    for form in (word, word.upper(), word.capitalize())
) | {"<<", "="}


class _NotOursError(ValueError):
    """Something that our files do not have."""


def read_yaml(text: str) -> Any:
    """The data of a cassette.

    Raises:
        yaml.YAMLError: It is no YAML.
    """
    try:
        return _read(text)
    except ValueError:
        return yamlserializer.deserialize(text)


def _read(text: str) -> dict[str, Any]:
    # deleting is fast, and leaves nothing of nearly every cassette
    if text.encode().translate(None, _USUAL) and (_UNUSUAL.search(text) or _FORBIDDEN.search(text)):
        raise _NotOursError
    head, *exchanges = text.split("\n- request:\n")
    if not exchanges:
        return _mapping(head)
    head, _, last = head.rpartition("\n")
    if last != "interactions:":
        raise _NotOursError
    last = exchanges[-1]
    exchanges[-1] = last.removesuffix("\n")
    if last == exchanges[-1]:
        raise _NotOursError
    return {**_mapping(head + "\n"), "interactions": [_exchange(each) for each in exchanges]}


def _exchange(text: str) -> dict[str, Any]:
    """An item of the list, from behind `- request:`, without its last line break."""
    request, found, response = text.partition("\n  response:\n")
    about, _, body = request.partition("\n    body: ")
    about_answer, found_answer, rest = response.partition("\n    body:\n")
    if not (found and body and found_answer):
        raise _NotOursError
    return {
        "request": {**_known(about), **_mapping(f"    body: {body}\n", 4)},
        "response": {**_known(about_answer), **_mapping(f"    body:\n{rest}\n", 4)},
    }


@functools.lru_cache(maxsize=256)
def _known(text: str) -> dict[str, Any]:
    """A part of an exchange that many have; nobody may change it."""
    return _mapping(text + "\n", 4)


def _mapping(text: str, column: int = 0) -> dict[str, Any]:
    """A mapping whose keys stand in a column."""
    root: dict[str, Any] = {}
    # The mappings and lists that are open, by rank: twice the column, and one more for a list,
    # because its dashes stand in the column of the key that it belongs to.
    levels: list[tuple[int, Any]] = [(-1, None), (2 * column, root)]
    opened = ""
    value: Any
    for indent, dash, key, quoted, binary, end, block, plain in _LINE.findall(text):
        rank = 2 * len(indent) + bool(dash)
        if opened:
            above, mapping = levels[-1]
            levels.append((above + 1, []) if dash else (above + 4, {}))
            mapping[opened] = levels[-1][1]
            opened = ""
        else:
            while levels[-1][0] > rank:
                levels.pop()
        if not (key or dash) or levels[-1][0] != rank or key in _OTHER_WORDS:
            raise _NotOursError
        if dash and key:
            levels.append((rank + 3, {}))
            levels[-2][1].append(levels[-1][1])
        if plain:
            value = _word(plain)
        elif quoted:
            value = quoted[1:].replace("''", "'")
        elif block and not dash:
            value = base64.b64decode(block) if binary else _unindented(block, indent + "  ", end)
        elif key:
            opened = key
            continue
        else:
            raise _NotOursError
        if key:
            levels[-1][1][key] = value
        else:
            levels[-1][1].append(value)
    if opened or not root:
        raise _NotOursError
    return root


def _unindented(block: str, margin: str, end: str) -> str:
    """The text of a block whose last line breaks are kept ("+"), dropped ("-") or one."""
    text = block.removeprefix(margin).replace("\n" + margin, "\n")
    return text if end == "+" else text.rstrip("\n") + ("" if end else "\n")


def _word(plain: str) -> Any:
    """What stands there without quotes: text, unless YAML 1.1 takes it for something else."""
    if plain[0] in _NUMBER:
        if _INTEGER.fullmatch(plain):
            return int(plain)
        if _FRACTION.fullmatch(plain):
            return float(plain)
        if any(pattern.match(plain) for _, pattern in _RESOLVERS.get(plain[0], ())):
            raise _NotOursError
        return plain
    if plain in _WORDS:
        return _WORDS[plain]
    if plain in _OTHER_WORDS:
        raise _NotOursError
    if plain == "{}":
        return {}
    return [] if plain == "[]" else plain
