"""The emulator with the tiny engine, unless another is named: `python -m tests.emulator.serve`.

`EMULATOR_TIMINGS` holds the timings that differ, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

from pytest_flymachines.emulator import engines
from pytest_flymachines.emulator.flyd import Timings
from pytest_flymachines.emulator.options import parse
from pytest_flymachines.emulator.process import CannotServe, serve
from tests.emulator import tiny


def main() -> int:
    timings = Timings(**json.loads(os.environ.get("EMULATOR_TIMINGS", "{}")))
    try:
        options = parse(sys.argv[1:])
        choose = tiny.choose if options.engine == "auto" else engines.choose
        asyncio.run(serve(options, choose, timings))
    except CannotServe as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
