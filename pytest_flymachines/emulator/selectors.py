"""Selectors of PromQL: a metric's name, and what its labels must be."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from pytest_flymachines.emulator.metrics import Sample

__all__ = ["Selector", "SelectorError", "parse"]

NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
MATCHER = re.compile(
    r"""\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)\s*("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')\s*(,|$)"""
)
ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


class SelectorError(ValueError):
    """It is no selector; PromQL has more, which is not understood here."""


@dataclass(frozen=True)
class Selector:
    """What series are wanted."""

    tests: tuple[tuple[str, Callable[[str], bool]], ...]

    def fits(self, sample: Sample) -> bool:
        """Whether a series is wanted; a label that it has not is empty."""
        labels = {**sample.labels, "__name__": sample.name}
        return all(test(labels.get(name, "")) for name, test in self.tests)


def parse(text: str) -> Selector:
    """Read `name`, `{label="value"}`, or both; `=`, `!=`, `=~` and `!~` compare.

    Raises:
        SelectorError: With what is wrong.
    """
    rest = text.strip()
    tests: list[tuple[str, Callable[[str], bool]]] = []
    if name := NAME.match(rest):
        tests.append(("__name__", name[0].__eq__))
        rest = rest[name.end() :].lstrip()
    if rest:
        if not (rest.startswith("{") and rest.endswith("}")):
            raise SelectorError(
                f'{text!r}: only selectors such as name{{app="a",instance=~"1.*"}} are understood '
                "here, no operators, functions or ranges"
            )
        tests += _matchers(text, rest[1:-1])
    if not tests:
        raise SelectorError(f"{text!r}: a selector needs a name or a label")
    return Selector(tuple(tests))


def _matchers(text: str, inside: str) -> list[tuple[str, Callable[[str], bool]]]:
    found, at = [], 0
    while inside[at:].strip():
        if (matcher := MATCHER.match(inside, at)) is None:
            raise SelectorError(f'{text!r}: expected label="value" at {inside[at : at + 20]!r}')
        name, operator, quoted, _ = matcher.groups()
        value = re.sub(r"\\(.)", lambda m: ESCAPES.get(m[1], m[1]), quoted[1:-1])
        found.append((name, _test(text, operator, value)))
        at = matcher.end()
    return found


def _test(text: str, operator: str, value: str) -> Callable[[str], bool]:
    if operator in ("=", "!="):
        return lambda label: (label == value) == (operator == "=")
    try:
        pattern = re.compile(value)
    except re.error as error:
        raise SelectorError(f"{text!r}: {value!r} is no regular expression: {error}") from None
    return lambda label: (pattern.fullmatch(label) is not None) == (operator == "=~")
