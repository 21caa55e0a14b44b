"""Reads the YAML of cassettes, in half of the time that PyYAML's constructors take.

vcrpy's own loader reads everything that this module does not understand, so that it needs to
know no more of YAML than cassettes have: no anchors, no tags but `!!binary`.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import yaml
from vcr.serializers import yamlserializer
from yaml.events import (
    DocumentEndEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
    StreamStartEvent,
)

__all__ = ["read_yaml"]

_Loader: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_BINARY = "tag:yaml.org,2002:binary"
_WORDS = {"null": None, "~": None, "": None, "true": True, "false": False}
_NUMBER = frozenset("0123456789-+.")


class _NotSimpleError(Exception):
    """Something that only a whole YAML loader understands."""


def read_yaml(text: str) -> Any:
    """The data of a cassette.

    Raises:
        yaml.YAMLError: It is no YAML.
    """
    loader = _Loader(text)
    try:
        next_event: Callable[[], Any] = loader.get_event
        if type(next_event()) is StreamStartEvent and type(next_event()) is DocumentStartEvent:
            data = _build(next_event, next_event())
            if type(next_event()) is DocumentEndEvent and type(next_event()) is StreamEndEvent:
                return data
    except _NotSimpleError:
        pass
    finally:
        loader.dispose()
    return yamlserializer.deserialize(text)


def _build(next_event: Callable[[], Any], event: Any) -> Any:
    kind = type(event)
    if event.anchor is not None or (event.tag is not None and kind is not ScalarEvent):
        raise _NotSimpleError
    if kind is ScalarEvent:
        return _scalar(event)
    if kind is MappingStartEvent:
        mapping = {}
        while type(event := next_event()) is not MappingEndEvent:
            if type(event) is not ScalarEvent:
                raise _NotSimpleError
            mapping[_build(next_event, event)] = _build(next_event, next_event())
        return mapping
    if kind is SequenceStartEvent:
        items = []
        while type(event := next_event()) is not SequenceEndEvent:
            items.append(_build(next_event, event))
        return items
    raise _NotSimpleError


def _scalar(event: Any) -> Any:
    value, tag = event.value, event.tag
    if tag is not None:
        if tag == _BINARY:
            return base64.b64decode(value)
        raise _NotSimpleError
    # quoted text and blocks are text; only plain words can be something else
    if event.style:
        return value
    if value in _WORDS:
        return _WORDS[value]
    if value[0] in _NUMBER:
        return _number(value)
    if value in _OTHER_WORDS:
        raise _NotSimpleError
    return value


_RESOLVERS: Any = yaml.SafeLoader.yaml_implicit_resolvers
# what YAML 1.1 takes for something else than text, beside numbers
_OTHER_WORDS = frozenset(
    form
    for word in ("yes", "no", "on", "off", "null", "true", "false")
    for form in (word, word.upper(), word.capitalize())
) | {"<<", "="}


def _number(value: str) -> Any:
    """A decimal number as our files have them, or text that only begins like one."""
    if value.isdigit() and (value == "0" or value[0] != "0"):
        return int(value)
    whole, point, fraction = value.partition(".")
    if point and whole.isdigit() and fraction.isdigit():
        return float(value)
    if any(pattern.match(value) for _, pattern in _RESOLVERS.get(value[0], ())):
        raise _NotSimpleError
    return value
