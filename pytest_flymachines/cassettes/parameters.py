"""Parameters of fixtures as text that is the same in every run and on every computer."""

from __future__ import annotations

import ast
import enum
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import PurePath
from types import FunctionType

__all__ = ["param_text"]

_PLAIN = (type(None), bool, int, float, complex, str, bytes)
_DEEPEST = 10
# an address, a path, and what may be a set, whose order changes from run to run
_UNSTEADY = re.compile(r"0x[0-9a-f]|[/\\{]")

Inner = Callable[[object], str]


class _UnsteadyError(ValueError):
    """Nothing that could be told of it is the same in every run."""


def param_text(param: object, index: int, rootdir: str = "") -> str:
    """A parameter as text: by its value where that is always the same, else its position.

    Different ones differ, also `1` and `"1"`.

    Args:
        param: The parameter.
        index: Its position among those of its fixture or its `parametrize`.
        rootdir: Paths in here are told relative to it.
    """
    if isinstance(param, str):
        alike = param.startswith("#") or _is_literal(param)
        text = repr(param) if alike else param
    else:
        try:
            text = _text(param, rootdir, _DEEPEST)
        except Exception:  # noqa: BLE001 - also what its own `__repr__` raises
            text = f"#{index}"
    return text.replace(rootdir, ".") if len(rootdir) > 1 else text


def _text(value: object, rootdir: str, depth: int) -> str:
    kind = type(value)

    def inner(item: object) -> str:
        return _text(item, rootdir, depth - 1)

    if not depth:
        raise _UnsteadyError
    if kind in _PLAIN:
        return repr(value)
    if isinstance(value, enum.Enum):
        return f"{kind.__qualname__}.{value.name}"
    if isinstance(value, type | FunctionType):
        if "<lambda>" in value.__qualname__:
            raise _UnsteadyError
        return value.__qualname__
    if isinstance(value, PurePath):
        if value.is_absolute() and not (rootdir and value.is_relative_to(rootdir)):
            raise _UnsteadyError
        return f"{value}"
    if kind in (list, tuple, set, frozenset, dict):
        return _of_many(value, inner)  # type: ignore[arg-type]  # each can be iterated over
    return _of_object(value, inner)


def _of_many(value: Iterable[object], inner: Inner) -> str:
    """As `repr`, and what has no order of its own is sorted."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{inner(k)}: {inner(v)}" for k, v in value.items()) + "}"
    items = list(map(inner, value))
    if isinstance(value, list):
        return f"[{', '.join(items)}]"
    if isinstance(value, tuple):
        return f"({items[0]},)" if len(items) == 1 else f"({', '.join(items)})"
    return f"{type(value).__name__}({{{', '.join(sorted(items))}}})"


def _of_object(value: object, inner: Inner) -> str:
    kind = type(value)
    facts: Mapping[str, object] | None = None
    if is_dataclass(value):
        facts = {field.name: getattr(value, field.name) for field in fields(value)}
    elif kind.__repr__ is object.__repr__:
        facts = getattr(value, "__dict__", None)
    if facts:
        told = ", ".join(f"{name}={inner(fact)}" for name, fact in facts.items())
        return f"{kind.__qualname__}({told})"
    text = repr(value)
    if _UNSTEADY.search(text):
        raise _UnsteadyError
    return text


def _is_literal(text: str) -> bool:
    try:
        ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return False
    return True
