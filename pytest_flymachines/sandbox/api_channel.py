"""`ApiChannel`: the way into a machine over the Machines API's exec alone.

Fly's exec runs one command at a time, once a second, for at most 60 s, takes requests below
16 KiB and gives text back. So a small runner in the machine (`runner.sh`) starts commands
detached, keeps their output in files and is asked for it by offset; bytes come back in base64,
and go up in pieces when one request cannot hold them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pytest_flymachines._clock import Clock
from pytest_flymachines.sandbox.api_files import ApiFiles
from pytest_flymachines.sandbox.api_processes import ApiProcesses
from pytest_flymachines.sandbox.api_trees import ApiTrees
from pytest_flymachines.sandbox.runner import Runner

if TYPE_CHECKING:
    from pytest_flymachines.api import MachinesClient

__all__ = ["ApiChannel"]


class ApiChannel(ApiTrees, ApiFiles, ApiProcesses):
    """The way into a machine over the Machines API alone. Thread-safe."""

    name: Literal["agent", "api"] = "api"

    def __init__(
        self,
        client: MachinesClient,
        app: str,
        machine_id: str,
        clock: Clock,
        *,
        workdir: str = "/workspace",
        base: bytes = b"",
        tools: str = "",
    ) -> None:
        """Make a channel; nothing is sent yet.

        Args:
            client: The API.
            app: App of the machine.
            machine_id: The machine.
            clock: Time for what waits.
            workdir: Absolute path of the workspace, below the machine's root.
            base: Directory of relative paths; relative to the workspace, default the workspace.
            tools: As `tools` of another channel to the machine; by default it is asked.
        """
        super().__init__(Runner(client, app, machine_id, workdir.encode(), base), clock)
        self._runner.learn_tools(tools)

    @property
    def tools(self) -> str:
        """What programs the machine has, a letter for each."""
        return self._runner.tools

    def with_base(self, base: bytes) -> Self:
        """The same way in, with relative paths resolved from another directory."""
        other = object.__new__(type(self))
        ApiProcesses.__init__(other, self._runner.with_base(base), self._clock)
        return other

    def close(self) -> None:
        """Nothing to give back: the client's owner closes it."""
