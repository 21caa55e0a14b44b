"""`python -m pytest_flymachines.emulator`."""

from __future__ import annotations

import asyncio
import sys

from pytest_flymachines.emulator.extra import missing


def main() -> int:
    """Serve until told to end."""
    if why := missing():
        return _refuse(why)
    from pytest_flymachines.emulator.engines import choose
    from pytest_flymachines.emulator.options import parse
    from pytest_flymachines.emulator.process import CannotServe, serve

    try:
        asyncio.run(serve(parse(sys.argv[1:]), choose))
    except CannotServe as error:
        return _refuse(str(error))
    return 0


def _refuse(why: str) -> int:
    print(f"pytest-flymachines emulator: {why}", file=sys.stderr)  # noqa: T201 - a program
    return 1


if __name__ == "__main__":
    sys.exit(main())
