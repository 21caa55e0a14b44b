"""The blocks of code on the pages in `docs/`, as they stand there."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Block:
    """One block: fenced, or indented by four spaces after an empty line.

    Attributes:
        page: Name of the file.
        line: Of its first line of code, from 1.
        language: What the fence says; empty for an indented block.
        text: The code, without its indentation.
    """

    page: str
    line: int
    language: str
    text: str

    @property
    def name(self) -> str:
        """Its page and how it begins: that stays when other lines come before it."""
        return f"{self.page}: {self.text.splitlines()[0]}"

    def commands(self) -> list[list[str]]:
        """What is typed, as words; without prompts, comments and output."""
        lines = self.text.replace("\\\n", " ").splitlines()
        if self.language == "console":
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        return [words for line in lines if (words := shlex.split(line, comments=True))]


@cache
def blocks() -> tuple[Block, ...]:
    """All of them, page by page."""
    return tuple(
        block for page in sorted((ROOT / "docs").glob("*.md")) for block in _blocks_of(page)
    )


def block(begins: str) -> Block:
    """The only one whose name begins so."""
    [found] = [block for block in blocks() if block.name.startswith(begins)]
    return found


def _blocks_of(page: Path) -> list[Block]:
    lines = page.read_text().splitlines()
    found: list[Block] = []
    start = 0
    while start < len(lines):
        end = start + 1
        if fence := re.fullmatch(r"```(.*)", lines[start]):
            end = lines.index("```", end)
            text = "\n".join(lines[start + 1 : end])
            found.append(Block(page.name, start + 2, fence[1], text + "\n"))
            end += 1
        elif lines[start].startswith("    ") and not lines[start - 1]:
            while end < len(lines) and (lines[end].startswith("    ") or not lines[end]):
                end += 1
            text = "\n".join(line[4:] for line in lines[start:end]).rstrip("\n")
            found.append(Block(page.name, start + 1, "", text + "\n"))
        start = end
    return found
