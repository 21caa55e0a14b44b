"""Stopping a tree of processes by signals."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from pytest_flymachines.emulator.engines.freezing import StoppedTree
from pytest_flymachines.emulator.engines.supervisor.tree import descendants

CALLER = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', *sys.argv[1:]]))"
SPAWN = """
import os, sys
opened = (os.POSIX_SPAWN_OPEN, 0, sys.argv[1], os.O_RDONLY, 0)
child = os.posix_spawn("/bin/true", ["true"], {}, file_actions=[opened])
sys.exit(os.waitpid(child, 0)[1])
"""


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_parent_that_waits_for_its_child_to_exec_counts_as_stopped(tmp_path: Path) -> None:
    """The kernel lets it wait where no signal reaches it, and its child is stopped first."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with subprocess.Popen([sys.executable, "-c", CALLER, SPAWN, fifo]) as root:
        deadline = time.monotonic() + 60
        while "D" not in [state(pid) for pid in descendants(root.pid)]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        tree = StoppedTree(root.pid)
        tree.stop()
        assert sorted(state(pid) for pid in descendants(root.pid)) == ["D", "T"]
        tree.go_on()
        fifo.write_bytes(b"")
        assert root.wait(60) == 0
