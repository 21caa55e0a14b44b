"""Records over and over in a child process, kills it at random moments, and looks at the files.

As a program: `crash.py DIRECTORY TIMES`. A child is forked, not started, so that the moments
fall into recording and not into imports.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from pytest_flymachines._http import Http, Request, Response, Transport
from pytest_flymachines.cassettes import CassetteKey, Recorder, Scrubber
from pytest_flymachines.cassettes.glances import blobs_named_in
from pytest_flymachines.cassettes.pruning import delete, left_over

EXCHANGES = 3
TESTS = 6
FILL = {False: "x" * 2000, True: "x" * 270_000}


class Answers(Transport):
    """Answers with the number of the generation."""

    def __init__(self, generation: int) -> None:
        self.generation = generation

    def handle_request(self, request: Request) -> Response:
        fill = FILL[b"large" in request.content]
        body = f'{{"generation":{self.generation},"fill":"{fill}{self.generation}"}}'
        headers = {"content-type": "application/json"}
        return Response(200, headers=headers, content=body.encode())


def record(directory: Path, generation: int) -> None:
    """Record a few tests, as often as there is time."""
    while True:
        recorder = Recorder(directory, mode="all", scrubber=Scrubber(environ={}))
        http = Http(recorder.transport(Answers(generation)), "http://x")
        for number in range(TESTS):
            key = CassetteKey.test(f"test_a.py::test_{number}")
            with recorder.use(key):
                for asked in range(EXCHANGES):
                    ask(http, number, asked)
            recorder.finish(key, passed=True)


def ask(http: Http, number: int, asked: int) -> Any:
    """One request; the answers of one test are large, and so kept in a file of their own."""
    body = {"n": asked, **({"large": True} if number == 5 else {})}
    return http.request("POST", "/v1/apps/a/machines/m/exec", json=body).json()


def check(directory: Path, generations: int) -> set[int]:
    """The generations that the files are of; an assertion fails if one is not whole."""
    found = set()
    for path in directory.glob("test_a.py/test_*.yaml"):
        data = yaml.safe_load(path.read_text())
        assert len(data["interactions"]) == EXCHANGES, f"{path} is not whole"
        bodies = {item["response"]["body"]["string"] for item in data["interactions"]}
        assert len(bodies) == 1, f"{path} is of two generations"
        replayer = Recorder(directory, mode="replay", scrubber=Scrubber(environ={}))
        key = CassetteKey.test(f"test_a.py::{path.stem}")
        with replayer.use(key):
            http = Http(replayer.transport(None), "http://x")
            number = int(path.stem.removeprefix("test_"))
            answer = ask(http, number, EXCHANGES - 1)
        assert answer["fill"] == FILL[number == 5] + str(answer["generation"])
        assert 0 <= answer["generation"] < generations
        found.add(answer["generation"])
    return found


def prune(directory: Path) -> None:
    """Delete what is needless; an assertion fails if anything but the cassettes is left."""
    delete(directory, left_over(directory))
    cassettes = set(directory.glob("test_a.py/test_*.yaml"))
    named = {digest for path in cassettes for digest in blobs_named_in(path)}
    left = {path for path in directory.rglob("*") if path.is_file()}
    assert left == cassettes | {directory / "blobs" / digest for digest in named}


def main() -> None:
    directory, times = Path(sys.argv[1]), int(sys.argv[2])
    chance = random.Random(int(sys.argv[3]))
    seen: set[int] = set()
    for generation in range(times):
        child = os.fork()
        if child == 0:
            record(directory, generation)
        while generation == 0 and len(list(directory.glob("test_a.py/*.yaml"))) < TESTS:
            time.sleep(0.01)
        time.sleep(chance.uniform(0.001, 0.08))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        seen |= check(directory, times)
        if generation % 2:  # else the next recording finds what this one has left
            prune(directory)
    print(f"{len(seen)} generations in {len(list(directory.glob('test_a.py/*.yaml')))} files")


if __name__ == "__main__":
    main()
