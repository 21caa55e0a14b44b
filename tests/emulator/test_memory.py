"""What an emulator remembers of machines that are gone stays small."""

from __future__ import annotations

from pytest_flymachines.emulator.config import File, MachineConfig
from pytest_flymachines.emulator.model import Machine, Version, share_files


def machine(content: str) -> Machine:
    config = MachineConfig(image="alpine", files=[File(guest_path="/program", raw_value=content)])
    return Machine(
        id="m",
        name="m",
        app="app",
        region="ord",
        instance_id="1",
        config=config,
        private_ip="",
        digest="",
        versions=[Version("1", config)],
    )


def test_machines_with_the_same_program_hold_it_once() -> None:
    machines = [machine("".join(("same", " program"))) for _ in range(3)]
    machines.append(machine("another program"))
    share_files(machines)
    contents = [one.config.files[0].raw_value for one in machines if one.config.files]
    assert contents == [*["same program"] * 3, "another program"]
    assert len({id(content) for content in contents}) == 2
