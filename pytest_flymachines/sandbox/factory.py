"""What `fly_sandbox_factory` gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Unpack

if TYPE_CHECKING:
    from pytest_flymachines.sandbox._handle import Sandbox
    from pytest_flymachines.spec import SpecChanges

__all__ = ["SandboxFactory"]


class SandboxFactory(Protocol):
    """Makes sandboxes that differ from `fly_sandbox_spec`."""

    def __call__(self, *, fresh: bool = False, **changes: Unpack[SpecChanges]) -> Sandbox:
        """A sandbox of the run.

        Args:
            fresh: A machine of its own; by default equal specs share one.
            changes: Fields of `SandboxSpec` that differ.

        Raises:
            SettingsError: There is no such field, or a value is not accepted.
            MachineStartFailed: No machine of this spec started.
        """
        ...
