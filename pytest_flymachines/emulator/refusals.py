"""What a machine's state does not allow, in flyd's words.

Source: answers of the live API; https://fly.io/docs/machines/machine-states/ for what is allowed.
"""

from __future__ import annotations

from pytest_flymachines.emulator.answers import Problem, conflict, failed_precondition
from pytest_flymachines.emulator.config import MachineConfig
from pytest_flymachines.emulator.model import Machine

__all__ = ["refuse_destroy", "refuse_restart", "refuse_start", "refuse_suspend", "unable"]

DESTROYABLE = ("stopped", "suspended", "failed", "created")


def refuse_start(machine: Machine, *, by_schedule: bool) -> None:
    """Start is for machines that are stopped, suspended or failed; a started one stays so."""
    match machine.state:
        case "started":
            return
        case "starting" | "restarting":
            raise conflict("machine still attempting to start")
        case "stopping" | "suspending":
            raise failed_precondition("machine still active, refusing to start")
        case "replacing" | "updating":
            raise failed_precondition("machine getting replaced, refusing to start")
        case "stopped" | "suspended" | "failed":
            if machine.config.schedule and machine.launched and not by_schedule:
                raise failed_precondition("machine has a schedule, refusing to start")
        case _:
            raise unable("start", machine)


def refuse_suspend(machine: Machine) -> None:
    """Suspend is for started machines, without what a snapshot cannot hold.

    Source: https://fly.io/docs/reference/suspend-resume/.
    """
    if machine.state != "started":
        raise unable("suspend", machine)
    for what in _unfit_for_suspend(machine.config):
        raise failed_precondition(f"unable to suspend machine with {what}")


def refuse_restart(machine: Machine) -> None:
    """Restart is for machines at rest and for started ones."""
    if machine.state not in ("started", "stopped", "suspended", "failed"):
        raise unable("restart", machine)


def refuse_destroy(machine: Machine, *, force: bool) -> None:
    """Without force only machines at rest are destroyed."""
    if not force and machine.state not in DESTROYABLE:
        raise failed_precondition(
            "unable to destroy machine, not currently stopped, suspended, failed or created"
        )


def unable(verb: str, machine: Machine) -> Problem:
    """The general refusal."""
    return failed_precondition(f"unable to {verb} machine from current state: '{machine.state}'")


def _unfit_for_suspend(config: MachineConfig) -> list[str]:
    found = []
    if config.init.swap_size_mb:
        found.append("swap")
    if config.schedule:
        found.append("a schedule")
    if config.guest and config.guest.gpus:
        found.append("a GPU")
    return found
