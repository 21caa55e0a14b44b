"""`python -m pytest_flymachines.emulator`."""

from __future__ import annotations

import asyncio
import sys

from pytest_flymachines.emulator.engines import choose
from pytest_flymachines.emulator.options import parse
from pytest_flymachines.emulator.process import CannotServe, serve


def main() -> int:
    """Serve until told to end."""
    try:
        asyncio.run(serve(parse(sys.argv[1:]), choose))
    except CannotServe as error:
        print(f"pytest-flymachines emulator: {error}", file=sys.stderr)  # noqa: T201 - a program
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
