"""Prometheus's text format, in which programs expose metrics.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["line", "read"]

SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(?:\{(.*)\})?\s+(\S+)(?:\s+(-?[0-9]+))?")
LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*(?:,|$)')
NUMBER = re.compile(r"[+-]?(?:Inf|inf)|NaN|nan|[+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?")


def read(text: str) -> Iterator[tuple[str, dict[str, str], str, int | None]]:
    """Name, labels, value and, if it says so, time in ms of every sample.

    Raises:
        ValueError: With the line that is none.
    """
    for number, row in enumerate(map(str.strip, text.split("\n")), 1):
        if not row or row.startswith("#"):
            continue
        sample = SAMPLE.fullmatch(row)
        if sample is None or not NUMBER.fullmatch(sample[3]):
            raise ValueError(f"line {number} is no sample: {row[:80]!r}")
        stamp = int(sample[4]) if sample[4] else None
        yield sample[1], _labels(sample[2] or "", number), sample[3], stamp


def line(name: str, labels: dict[str, str], value: str, at_ms: int) -> str:
    """A sample as a line, with its newline."""
    pairs = (f'{key}="{_escaped(text)}"' for key, text in sorted(labels.items()))
    return f"{name}{{{','.join(pairs)}}} {value} {at_ms}\n"


def _labels(text: str, number: int) -> dict[str, str]:
    labels, at = {}, 0
    while text[at:].strip():
        if (label := LABEL.match(text, at)) is None:
            raise ValueError(f"line {number} has no label at {text[at : at + 40]!r}")
        labels[label[1]] = re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], label[2])
        at = label.end()
    return labels


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
