"""Rows under headings, for what the console script lists."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

__all__ = ["table"]


def table(
    names: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Collection[str] = ()
) -> Iterator[str]:
    """The lines of a table, each column as wide as its widest cell.

    Lines are not folded: a terminal does that, and what is copied from one, or piped on, is whole.

    Args:
        names: The headings.
        rows: The cells below them.
        numbers: Headings of the columns whose right ends are in line.
    """
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    aligned = [str.rjust if name in numbers else str.ljust for name in names]
    for row in (names, *rows):
        cells = (put(cell, width) for put, cell, width in zip(aligned, row, widths, strict=True))
        yield "  ".join(cells).rstrip()
