"""Many clients at once, in no order: no answer is a 500, and everything can be ended."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import httpx
import pytest

from tests.emulator.conftest import App, Fly, Machine, Serve, eventually

ACTIONS = ("start", "stop", "suspend", "restart", "exec", "update", "destroy", "wait", "kill")


def act(app: App, machine: Machine, action: str, chance: random.Random) -> int:
    path = f"{machine.path}/{action}"
    match action:
        case "exec":
            return app.fly("POST", path, {"cmd": "true", "timeout": 1}).status_code
        case "update":
            body = {"config": {"image": "alpine", "init": {"exec": ["sleep", "inf"]}}}
            return app.fly("POST", machine.path, body).status_code
        case "destroy":
            force = chance.choice(("true", "false"))
            return app.fly("DELETE", f"{machine.path}?force={force}").status_code
        case "wait":
            return app.fly("GET", f"{path}?state=settled&timeout=1").status_code
        case "kill":
            return app.fly("POST", f"{machine.path}/signal", {"signal": 9}).status_code
        case _:
            return app.fly("POST", path).status_code


@pytest.mark.parametrize("seed", [1, 2])
def test_disorder(serve: Serve, tmp_path: Path, seed: int) -> None:
    log = tmp_path / "log"
    with serve("--app", "wild", "--log", str(log), restart_backoff_max_s=0.1) as emulator:
        fly = Fly(emulator)
        app = App(fly, "wild")
        machines = [app.create("sleep", "inf", wait=None) for _ in range(4)]
        statuses: list[int] = []

        def client(number: int) -> None:
            chance = random.Random(f"{seed} {number}")
            own = Fly(emulator)
            mine = App(own, "wild")
            for _ in range(40):
                machine = Machine(mine, chance.choice(machines).id)
                try:
                    statuses.append(act(mine, machine, chance.choice(ACTIONS), chance))
                except httpx.ReadTimeout:
                    statuses.append(599)
            own.close()

        clients = [threading.Thread(target=client, args=(number,)) for number in range(6)]
        for thread in clients:
            thread.start()
        for thread in clients:
            thread.join()
        assert len(statuses) == 240
        assert set(statuses) <= {200, 404, 408, 409, 412}
        for machine in machines:
            fly("DELETE", f"{machine.path}?force=true")
        eventually(lambda: fly.ok("GET", app.machines) == [])
        fly.close()
    # What goes wrong in the background is in the log.
    assert [line for line in log.read_text().splitlines() if '"failure"' in line] == []
    assert emulator._process.returncode == 0
