"""What surprises whoever writes against the Machines API, and which tests show that it is met.

Each is reproduced by the emulator and survived by our client, or named as left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

F = TypeVar("F", bound=Callable[..., object])

ROOT = Path(__file__).parents[2]

#: Number, what surprises, where it is known from.
SURPRISES: tuple[tuple[int, str, str], ...] = (
    (1, "a machine can stay `created` for minutes to hours", "seen: community.fly.io/t/28143"),
    (2, "a start right after create, stop or update is refused although reads look fine", "seen"),
    (3, "wait and exec end after 60 s at most", "docs, seen"),
    (4, "a wait ends with 408 although the state passed by meanwhile", "flyctl"),
    (
        5,
        "a wait for `stopped` without `instance_id` was refused for years",
        "seen: superfly/flyctl#1751",
    ),
    (6, "an exec above 16 KiB is a 200 with exit code 0 and an error text as output", "init, seen"),
    (7, "exec runs as root in `/`, whatever the image says of user and directory", "init"),
    (8, "an exec that takes too long goes on in the machine, its output is lost", "seen"),
    (9, "the stdin of an exec may not arrive", "seen"),
    (10, "`flyctl machine exec` exits with 0 whatever the command did", "flyctl"),
    (11, 'fly-go\'s `List(app, "started")` sends `?started`, which filters nothing', "fly-go"),
    (12, "lists lag behind by seconds; GET by id is the authority", "flyctl, fly-go"),
    (13, "a new app or machine may be a 404 or 401 for seconds", "fly-go"),
    (14, "fly-go repeats a create after 502 or 503: only a name prevents a second one", "fly-go"),
    (15, "a name stays taken until its machine is destroyed in the end", "guess"),
    (16, "a destroyed machine can be read for a while, then it is a 404", "seen"),
    (17, "a volume stays bound for seconds to minutes after its machine's destroy", "seen"),
    (18, "destroy leaves the volume; a stop with `auto_destroy` destroys", "docs, seen"),
    (19, "an update of a stopped machine does not start it", "seen"),
    (20, "stop and start wipe the root file system, suspend and start do not", "docs"),
    (21, "fly-go tries to get a lease for a minute, whatever the error", "fly-go"),
    (
        22,
        'fly-go stops with `timeout: "0s"`, signals by number and destroys with `kill`',
        "fly-go",
    ),
    (23, "documents show `exited_at` as a number, fly-go needs a text", "fly-go"),
    (24, "regions and placements have keys in capitals", "seen"),
    (25, "lists filter by `metadata.KEY`, which the document does not say", "docs"),
    (26, "machines of trial organizations are stopped after five minutes", "seen"),
    (27, "an image that was pushed seconds ago is a 400 MANIFEST_UNKNOWN", "seen"),
    (28, "autostop stops a machine that is busy with exec only", "docs"),
    (29, "a machine may move to another host: another address, no snapshot", "flyctl, docs"),
    (30, "the disk of the root file system is slow: 8 MiB/s", "docs"),
    (31, "rate limits count per machine and action, a second each; create per app", "docs"),
    (32, "on a host that does not answer, `config` is null", "fly-go"),
    (33, "an app has no public address until one is allocated", "docs"),
    (34, "a machine with a schedule cannot be started through the API", "docs"),
)

#: Why one is not reproduced; what our client does about it all the same is in the tests beside.
LEFT_OUT = {
    9: "stdin arrives, as the document says; our handle carries it in the command or in files",
    10: "flyctl's own; the answer that it gets has the exit code",
    26: "nothing is billed here; to a client it is a machine that stopped, which others show",
    29: "there is one host; `Sandbox.private_ip` is that of the launch",
    30: "this computer's disk is as fast as it is",
}


@dataclass(frozen=True)
class _Shown:
    test: str
    also: tuple[str, ...]


SHOWN: dict[int, list[_Shown]] = {}

#: Tests of our client for what is left out here.
SURVIVED = {
    9: ("tests/sandbox/test_api_channel.py: test_stdin_of_a_process",),
    26: ("tests/api/test_emulator.py: test_a_machine_that_ends_at_once_misses_its_start",),
}


def surprise(number: int, *also: str) -> Callable[[F], F]:
    """Say which surprise a test shows; `also` names tests elsewhere as `path: name`."""

    def register(function: F) -> F:
        module = function.__module__.rsplit(".", 1)[-1]
        SHOWN.setdefault(number, []).append(_Shown(f"{module}.{function.__name__}", also))
        return function

    return register


def rows() -> list[str]:
    """The rows of the table, in order."""
    lines = []
    for number, text, source in SURPRISES:
        shown = SHOWN.get(number, [])
        tests = [test for item in shown for test in (item.test, *item.also)]
        tests += SURVIVED.get(number, ())
        names = ", ".join(f"`{test}`" for test in tests)
        left_out = LEFT_OUT.get(number, "")
        told = f"left out: {left_out}" if left_out else "yes"
        lines.append(f"| {number} | {text} | {source} | {told} | {names} |")
    return lines


def missing() -> list[str]:
    """Tests elsewhere that are named, but do not exist."""
    named = [test for shown in SHOWN.values() for item in shown for test in item.also]
    named += [test for tests in SURVIVED.values() for test in tests]
    return [test for test in named if not _exists(*test.split(": "))]


def _exists(path: str, name: str) -> bool:
    return re.search(rf"def {name}\(", (ROOT / path).read_text()) is not None
