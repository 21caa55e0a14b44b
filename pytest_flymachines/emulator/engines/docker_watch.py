"""Removes an engine's containers when its process is gone: the daemon would keep them.

Usage: python -m pytest_flymachines.emulator.engines.docker_watch LABEL

Its stdin is a pipe whose other end the emulator holds as long as it lives.
"""

from __future__ import annotations

import contextlib
import sys

from docker.errors import DockerException

from pytest_flymachines.emulator.engines.base import EngineError
from pytest_flymachines.emulator.engines.docker_client import connect, remove_all


def main() -> None:
    """Wait for stdin to end, then remove everything that has the label."""
    sys.stdin.buffer.read()
    with contextlib.suppress(EngineError, DockerException, OSError):  # The daemon is gone too.
        remove_all(connect(), sys.argv[1])


if __name__ == "__main__":
    main()
