"""Read a GraphQL query as far as answering it takes: fields, aliases, arguments, nesting.

Spreads of fragments are skipped: what they select is part of every answer anyway.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

__all__ = ["Field", "QueryError", "parse_query"]

LEXEME = re.compile(r'"(?:[^"\\]|\\.)*"|\.\.\.|[$@]?\w+|#[^\n]*|[^\s,]')
MAX_DEPTH = 30


class QueryError(ValueError):
    """A text that is no query."""


@dataclass(frozen=True)
class Field:
    """A field of a selection: its key in the answer, its name, its arguments, what it selects."""

    key: str
    name: str
    arguments: dict[str, Any]
    fields: tuple[Field, ...] = ()


def parse_query(text: str, variables: dict[str, Any]) -> tuple[Field, ...]:
    """The fields that the first operation of a document selects.

    Args:
        text: The document.
        variables: Values for `$name` in arguments.

    Raises:
        QueryError: It is not well formed.
    """
    lexemes = [lexeme for lexeme in LEXEME.findall(text) if not lexeme.startswith("#")]
    reader = _Reader(lexemes, variables)
    while reader.peek() not in ("{", ""):
        if reader.take() == "(":
            reader.arguments()
    return reader.selection(0)


class _Reader:
    def __init__(self, lexemes: list[str], variables: dict[str, Any]) -> None:
        self._lexemes = lexemes
        self._variables = variables
        self._at = 0

    def peek(self) -> str:
        return self._lexemes[self._at] if self._at < len(self._lexemes) else ""

    def take(self) -> str:
        lexeme = self.peek()
        if not lexeme:
            raise QueryError("unexpected end of query")
        self._at += 1
        return lexeme

    def selection(self, depth: int) -> tuple[Field, ...]:
        """`{ field alias:field(arguments) { ... } ... on Type { ... } }`."""
        if depth > MAX_DEPTH or self.take() != "{":
            raise QueryError("expected a selection of fields")
        fields: list[Field] = []
        while self.peek() != "}":
            if self.peek() == "...":
                fields += self._fragment(depth)
            else:
                fields.append(self._field(depth))
        self.take()
        return tuple(fields)

    def _fragment(self, depth: int) -> tuple[Field, ...]:
        self.take()
        if self.peek() != "on" and self.peek() != "{":
            self.take()
            return ()
        if self.peek() == "on":
            self.take()
            self.take()
        return self.selection(depth + 1)

    def _field(self, depth: int) -> Field:
        key = name = self.take()
        if not re.fullmatch(r"\w+", key):
            raise QueryError(f"unexpected {key!r}")
        if self.peek() == ":":
            self.take()
            name = self.take()
        arguments: dict[str, Any] = {}
        if self.peek() == "(":
            self.take()
            arguments = self.arguments()
        while self.peek().startswith("@"):
            self.take()
            if self.peek() == "(":
                self.take()
                self.arguments()
        fields = self.selection(depth + 1) if self.peek() == "{" else ()
        return Field(key, name, arguments, fields)

    def arguments(self) -> dict[str, Any]:
        """Up to the closing bracket; values that are neither variable nor plain are dropped."""
        found: dict[str, Any] = {}
        depth, name = 1, ""
        while depth:
            lexeme = self.take()
            depth += {"(": 1, "{": 1, "[": 1, ")": -1, "}": -1, "]": -1}.get(lexeme, 0)
            if depth > 1:
                name = ""
            if depth == 1 and self.peek() == ":":
                name = lexeme
            elif depth == 1 and name and lexeme != ":":
                known = lexeme.startswith("$")
                found[name] = self._variables.get(lexeme[1:]) if known else lexeme.strip('"')
                name = ""
        return found
