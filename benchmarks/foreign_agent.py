"""Bringing a cook-agent of 8 MB into a machine: our ways, and base64 pieces by exec.

    python benchmarks/foreign_agent.py [--megabytes 8] [--latency MS] [--engine ENGINE]

Against a stand-alone emulator with Fly's limits of size; every answer takes 50 ms more. Our ways
run with Fly's rate limits on, and are measured from the create until the agent listens: 8 MB goes
up over our own agent, and a small one travels in the machine's config. The pieces run with the
rate limits off, because at one request a second they would take half an hour; `at 1/s` is computed
from the number of their requests, a burst of three at once.

"Counted" are the requests that a rate limit of Fly's counts; what goes to our own agent in the
machine does not (https://fly.io/docs/machines/api/working-with-machines-api/).
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import httpx

from pytest_flymachines.agent.bundle import build as build_agent
from pytest_flymachines.api import MachinesClient
from pytest_flymachines.backend import build
from pytest_flymachines.cassettes import Recorder
from pytest_flymachines.emulator.launch import EmulatorProcess, launch
from pytest_flymachines.foreign_agent import CONFIG_BYTES
from pytest_flymachines.machine_config import Identity, machine_config
from pytest_flymachines.options import OPTIONS
from pytest_flymachines.provision import attach
from pytest_flymachines.provision import launch as provision
from pytest_flymachines.settings import Settings
from pytest_flymachines.sharing import RunInfo
from pytest_flymachines.spec import SandboxSpec

APP = "bench"
TARGET = 12
SMALL_BYTES = 300_000
BURST = 3
# As in https://github.com/justinmoon/cook, whose pieces were appended with `echo -n`.
ORIGINAL_CHARS = 50_000
# With its envelope below 12 KB, where Fly's guest takes 16 KiB with everything in it.
LIMITED_CHARS = 8192
ALWAYS_COUNTED = re.compile(r"^(GET|POST|PUT|DELETE) /v1/apps/[^/]+/machines(/|$)")


@dataclass
class Row:
    """One way's figures."""

    way: str
    counted: int
    seconds: float
    computed_s: float | None = None
    note: str = ""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=int, default=8)
    parser.add_argument("--latency", type=float, default=50)
    parser.add_argument("--engine", default="auto")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        large = agent_program(Path(name) / "cook-agent", options.megabytes * 1_000_000)
        small = agent_program(Path(name) / "small-agent", SMALL_BYTES)
        rows = []
        for number, (way, program, limits) in enumerate(
            (
                (ours, large, True),
                (ours, small, True),
                (original_pieces, large, False),
                (limited_pieces, large, False),
            )
        ):
            log = Path(name) / f"log-{number}"
            with launch(
                engine=options.engine,
                apps=[APP],
                rate_limits=limits,
                latency_ms=options.latency,
                log=log,
            ) as emulator:
                row = way(emulator, program, log)
                rows.append(row)
                print(f"{row.way}: done in {row.seconds:.1f} s", flush=True)
    print(f"\n{'':36}{'counted':>10}{'seconds':>10}{'at 1/s':>10}")
    for row in rows:
        computed = "" if row.computed_s is None else f"{row.computed_s:10.0f}"
        print(f"{row.way:36}{row.counted:10}{row.seconds:10.1f}{computed}  {row.note}")
    print(f"ours: target at most {TARGET} counted requests")


def agent_program(path: Path, size: int) -> Path:
    """Our own agent as a foreign one, made as large as asked for with what nothing compresses."""
    shebang, agent = b"#!/usr/bin/env -S python3 -I\n", build_agent()
    path.write_bytes(shebang + os.urandom(size - len(shebang) - len(agent)) + agent)
    path.chmod(0o755)
    return path


def ours(emulator: EmulatorProcess, program: Path, log: Path) -> Row:
    """What `--fly-agent=PATH` does, live: launch, workspace, agent delivered and started."""
    with tempfile.TemporaryDirectory() as scratch:
        recorder = Recorder(Path(scratch) / "none", mode="off")
        backend = build(
            live_settings(emulator), RunInfo(run_id="bench", directory=scratch), recorder
        )
        spec = SandboxSpec(app=APP, agent=str(program))
        start = time.perf_counter()
        launched = provision(backend, spec, identity("ours"), rootdir=Path(scratch))
        seconds = time.perf_counter() - start
        counted = requests(log)
        sandbox = attach(backend, spec, launched, rootdir=Path(scratch))
        listening = sandbox.exec("cat /proc/net/tcp /proc/net/tcp6 2>/dev/null").stdout
        assert f":{7422:04X} " in listening, "the foreign agent does not listen"
        backend.close()
    shown = ", ".join(f"{n} {what}" for what, n in counted.items())
    where = "in the config" if program.stat().st_size <= CONFIG_BYTES else "over our agent"
    return Row(f"ours, {where}, rate limits on", counted.total(), seconds, note=shown)


def original_pieces(emulator: EmulatorProcess, program: Path, _: Path) -> Row:
    """The pieces of 50,000 characters: sent until the first that is refused."""
    with api(emulator) as client:
        machine = plain_machine(client)
        text = base64.b64encode(program.read_bytes()).decode()
        start = time.perf_counter()
        # not by our client, which does not even send it
        answer = httpx.post(
            f"{emulator.api_url}/v1/apps/{APP}/machines/{machine}/exec",
            headers={"authorization": f"Bearer {emulator.token}"},
            json={"command": append(text[:ORIGINAL_CHARS])},
        )
        seconds = time.perf_counter() - start
    assert "Rejection([" in answer.text, f"the emulator takes what Fly does not: {answer.text}"
    needed = pieces(text, ORIGINAL_CHARS)
    note = f"of which the first is refused: {answer.status_code} {answer.text.strip()[:60]}..."
    return Row("pieces of 50,000 characters", needed, seconds, at_one_a_second(needed), note)


def limited_pieces(emulator: EmulatorProcess, program: Path, log: Path) -> Row:
    """The same in pieces that the server takes, all of them."""
    with api(emulator) as client:
        machine = plain_machine(client)
        before = requests(log).total()
        data = program.read_bytes()
        text = base64.b64encode(data).decode()
        start = time.perf_counter()
        for at in range(0, len(text), LIMITED_CHARS):
            assert client.exec(APP, machine, append(text[at : at + LIMITED_CHARS])).exit_code == 0
        finish = "base64 -d /tmp/agent.b64 >/tmp/cook-agent && chmod 755 /tmp/cook-agent"
        finish += " && wc -c </tmp/cook-agent"
        done = client.exec(APP, machine, ["/bin/sh", "-c", finish])
        seconds = time.perf_counter() - start
    assert int(done.stdout or 0) == len(data), "it did not arrive whole"
    counted = requests(log).total() - before
    note = "really sent; rate limits off"
    return Row("pieces of 8,192 characters", counted, seconds, at_one_a_second(counted), note)


def append(piece: str) -> list[str]:
    return ["sh", "-lc", f"printf %s '{piece}' >>/tmp/agent.b64"]


def pieces(text: str, size: int) -> int:
    return -(-len(text) // size)


def at_one_a_second(count: int) -> float:
    return max(0, count - BURST)


def requests(log: Path) -> Counter[str]:
    """What the emulator's log has of requests that a rate limit counts, by kind."""
    found: Counter[str] = Counter()
    for line in log.read_text().splitlines():
        entry = json.loads(line)
        where = f"{entry.get('method')} {entry.get('path')}"
        if ALWAYS_COUNTED.match(where):
            last = entry["path"].rstrip("/").rpartition("/")[2]
            kind = last if last in ("exec", "wait", "metadata") else entry["method"].lower()
            found["create" if where.endswith("/machines") else kind] += 1
    return found


def api(emulator: EmulatorProcess) -> MachinesClient:
    return MachinesClient(emulator.token, base_url=emulator.api_url, pace=False)


def plain_machine(client: MachinesClient) -> str:
    config = machine_config(SandboxSpec(app=APP, agent="off"), identity("pieces"), agent_token="")
    machine = client.create_machine(APP, config, name="pieces")
    client.wait(APP, machine.id, "started", version=machine.instance_id)
    return machine.id


def identity(name: str) -> Identity:
    return Identity(name=name, metadata={"pytest_flymachines_run": "bench"}, ttl_s=3600)


def live_settings(emulator: EmulatorProcess) -> Settings:
    """Those of a live run, at the emulator: with pacing, as for Fly."""
    values = {option.name: option.default for option in OPTIONS}
    values |= {"cassettes": Path(), "api_url": emulator.api_url, "mode": "live"}
    return Settings(
        **values,
        chosen="live",
        why="",
        token=emulator.token,
        proxy_url=emulator.proxy_url,
        scrub=(),
        rootdir=Path(),
    )


if __name__ == "__main__":
    main()
