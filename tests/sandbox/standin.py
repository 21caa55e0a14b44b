"""A stand-in for the Machines API's exec, for tests of what goes through it.

It runs commands on this computer with all that makes Fly's exec narrow: a small body, one at a
time, text for output, no stdin, cwd `/`, and a process that goes on after 408.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pytest_flymachines.errors import ApiError


@dataclass
class Answer:
    exit_code: int
    stdout: str
    stderr: str
    exit_signal: int = 0


@dataclass
class StandIn:
    """What ApiChannel asks of a `MachinesClient`.

    Attributes:
        root: Directory that stands for the machine's `/`.
        prefix: Put before each command, to run it elsewhere.
        requests: Every command that was asked for.
        urgent: Those of them that were not to wait for their turn.
    """

    root: Path
    prefix: Sequence[str] = ()
    env: dict[str, str] = field(default_factory=dict)
    requests: list[list[str]] = field(default_factory=list)
    urgent: list[list[str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def exec(
        self,
        app: str,
        machine_id: str,
        command: Sequence[str],
        *,
        timeout_s: float | None = None,
        repeat_safe: bool = False,
        urgent: bool = False,
    ) -> Answer:
        body = json.dumps({"command": list(command), "timeout": timeout_s}, ensure_ascii=False)
        assert len(body.encode()) < 16 * 1024
        assert timeout_s is not None
        assert timeout_s <= 60
        self.lock.acquire()
        ended: Callable[[], object] = self.lock.release
        try:
            self.requests.append(list(command))
            if urgent:
                self.urgent.append(list(command))
            process = subprocess.Popen(
                [*self.prefix, *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd="/",
                env={"PATH": os.environ["PATH"], "HOME": "/", **self.env},
            )
            try:
                stdout, stderr = process.communicate(timeout=timeout_s)
            except subprocess.TimeoutExpired:
                raise ApiError("POST", "/exec", 408, "", message="deadline_exceeded") from None
            except KeyboardInterrupt:  # at Fly, too, it goes on when its caller is gone,
                # and no other runs until it has ended

                def wait() -> None:
                    process.communicate()
                    self.lock.release()

                ended = threading.Thread(target=wait, daemon=True).start
                raise
        finally:
            ended()
        code = process.returncode if process.returncode >= 0 else 128 - process.returncode
        return Answer(code, stdout.decode("utf-8", "replace"), stderr.decode("utf-8", "replace"))
