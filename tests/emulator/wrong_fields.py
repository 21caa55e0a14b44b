"""Requests with one wrong thing in them, made from Fly's own OpenAPI document.

For every operation that takes a body: each field, however deep, with a value of another type. For
every operation: each query parameter that is a number or a truth, with a text that is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.emulator.openapi import JSON, document

__all__ = ["UNSUPPORTED", "Wrong", "wrong_bodies", "wrong_parameters"]

#: What answers 501, whatever the request.
UNSUPPORTED = ("/certificates", "/secretkeys", "/tokens/", "/postgres")
#: Anything goes: a text, a list or false.
FREE = ".http_options.response.headers.*"
#: A value of another type for each type.
ANOTHER: dict[str, Any] = {
    "string": ["no", "text"],
    "integer": "seven",
    "number": "seven",
    "boolean": "maybe",
    "array": {"no": "list"},
    "object": ["no", "object"],
}


@dataclass(frozen=True)
class Wrong:
    """A request that must be refused.

    Attributes:
        method: Of the request.
        path: With the names of its parameters in braces, as in the document.
        field: What is wrong, with dots; a name of the query if there is no body.
        body: Of the request.
        query: Of the request.
    """

    method: str
    path: str
    field: str
    body: Any = None
    query: tuple[tuple[str, str], ...] = ()


def wrong_bodies() -> Iterator[Wrong]:
    """Every field of every body."""
    for method, path, operation in _operations():
        content = operation.get("requestBody", {}).get("content", {})
        schema = content.get("application/json", {}).get("schema")
        if schema is not None:
            for field, body in _broken(schema, ()):
                if not field.endswith(FREE):
                    yield Wrong(method, path, field, body)


def wrong_parameters() -> Iterator[Wrong]:
    """Every number and truth of every query."""
    for method, path, operation in _operations():
        for parameter in operation.get("parameters", ()):
            if parameter["in"] == "query" and parameter["schema"]["type"] in (
                "integer",
                "boolean",
            ):
                name = parameter["name"]
                yield Wrong(method, path, name, query=((name, "maybe"),))


def _operations() -> Iterator[tuple[str, str, JSON]]:
    for path, operations in document()["paths"].items():
        for method, operation in operations.items():
            if not any(part in path for part in UNSUPPORTED):
                yield method.upper(), path, operation


def _broken(schema: JSON, around: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """Name of a field, and a value for this schema in which it alone is wrong."""
    schema = _resolved(schema)
    properties = schema.get("properties", {})
    if around:
        yield ".".join(around), ANOTHER[schema.get("type", "object")]
    if schema.get("type") == "array":
        for name, value in _broken(schema["items"], (*around, "[]")):
            yield name, [value]
    for key, inner in properties.items():
        for name, value in _broken(inner, (*around, key)):
            yield name, {key: value}
    if isinstance(schema.get("additionalProperties"), dict):
        for name, value in _broken(schema["additionalProperties"], (*around, "*")):
            yield name, {"some": value}


def _resolved(schema: JSON) -> JSON:
    """The schema behind references; the document wraps those of enumerations in `allOf`."""
    while True:
        if "$ref" in schema:
            schema = document()["components"]["schemas"][schema["$ref"].rsplit("/", 1)[-1]]
        elif "allOf" in schema:
            schema = schema["allOf"][0]
        else:
            return schema
