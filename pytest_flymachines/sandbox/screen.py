"""What a terminal shows: control sequences rendered by pyte."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

from pytest_flymachines.errors import FlyMachinesError

__all__ = ["Emulation", "Screen"]


@dataclass(frozen=True)
class Screen:
    """What a terminal shows; `"text" in screen` looks for text on it.

    Attributes:
        lines: One string for each row, blanks at the end cut off.
        cursor: Row and column, from 0.
        title: Title that the program has set.
    """

    lines: tuple[str, ...]
    cursor: tuple[int, int]
    title: str = ""

    @property
    def text(self) -> str:
        """All rows, empty ones at the end cut off."""
        return "\n".join(self.lines).rstrip("\n")

    def __contains__(self, text: str) -> bool:
        return text in self.text

    def __str__(self) -> str:
        return self.text


class Emulation:
    """A terminal that is fed with output."""

    def __init__(self, rows: int, cols: int, *, answer: Callable[[str], None]) -> None:
        """Make a blank one.

        Args:
            rows: Height.
            cols: Width.
            answer: Called with what the terminal sends by itself when a program asks it.
        """
        try:
            import pyte
        except ModuleNotFoundError as error:
            raise FlyMachinesError(
                "terminal() needs pyte to know what a screen shows: "
                "pip install 'pytest-flymachines[terminal]'"
            ) from error
        self._screen = cast("Any", pyte.Screen(cols, rows))
        self._screen.write_process_input = answer
        # pyte raises for sequences that it knows with other parameters, such as xterm's
        # private `CSI > 4 ; 2 m`; a terminal does not
        for name in set(pyte.Stream.csi.values()):
            setattr(self._screen, name, _lenient(getattr(self._screen, name)))
        self._stream = pyte.Stream(self._screen)

    def feed(self, text: str) -> None:
        """Take output of the program."""
        self._stream.feed(text)

    def resize(self, rows: int, cols: int) -> None:
        """Take another size."""
        self._screen.resize(rows, cols)

    def screen(self) -> Screen:
        """What is shown now."""
        cursor = self._screen.cursor
        lines = tuple(line.rstrip() for line in self._screen.display)
        return Screen(lines, (cursor.y, cursor.x), self._screen.title)


def _lenient(handler: Callable[..., None]) -> Callable[..., None]:
    def handle(*args: Any, **kwargs: Any) -> None:
        with suppress(TypeError):
            handler(*args, **kwargs)

    return handle
