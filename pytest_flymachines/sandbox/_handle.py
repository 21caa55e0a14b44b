"""`Sandbox`: the handle of one machine that is ready for tests."""

from __future__ import annotations

from pytest_flymachines.sandbox.cook import CookVerbs
from pytest_flymachines.sandbox.files import FileVerbs
from pytest_flymachines.sandbox.http import HttpVerbs
from pytest_flymachines.sandbox.machine import MachineVerbs
from pytest_flymachines.sandbox.processes import ProcessVerbs
from pytest_flymachines.sandbox.terminal import TerminalVerbs
from pytest_flymachines.sandbox.trees import TreeVerbs
from pytest_flymachines.sandbox.workspace import WorkspaceVerbs

__all__ = ["Sandbox"]


class Sandbox(
    ProcessVerbs,
    TerminalVerbs,
    TreeVerbs,
    FileVerbs,
    WorkspaceVerbs,
    HttpVerbs,
    CookVerbs,
    MachineVerbs,
):
    """A machine that is ready for tests: started, workspace in place, agent up.

    Made by the `fly_sandbox` fixture and its siblings. All methods may be called from several
    threads at once.
    """

    def __repr__(self) -> str:
        at = self.attachment
        return f"<Sandbox {at.machine_id} app={at.app} region={at.region} workdir={at.workdir}>"
