"""Checkpoints of the workspace, and private copies of it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from pytest_flymachines.sandbox.attachment import Attached
from pytest_flymachines.sandbox.text import decode_name

__all__ = ["PRISTINE", "WorkspaceVerbs"]

#: The workspace as it was after the clone; `fly_workspace` copies it.
PRISTINE = "pytest-flymachines-pristine"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class WorkspaceVerbs(Attached):
    """The workspace as a whole."""

    def checkpoint(self, name: str) -> None:
        """Keep a copy of the workspace in the machine, replacing an older one of this name.

        Args:
            name: At most 100 of letters, digits, `.`, `_` and `-`, no sign first.

        Raises:
            ValueError: It is no such name, or the plugin's own.
        """
        self._channel.save_checkpoint(_checked(name))

    def restore(self, name: str) -> None:
        """Make the workspace what it was at checkpoint `name`; what came later is gone.

        Raises:
            ValueError: It is no such name as `checkpoint` takes.
            LookupError: There is no checkpoint of this name.
        """
        self._channel.restore_checkpoint(_checked(name))

    def checkpoints(self) -> list[str]:
        """Names of the checkpoints that were made with `checkpoint`, sorted.

        Raises:
            MachineGone: The machine does not run.
        """
        return [name for name in self._channel.checkpoints() if name != PRISTINE]

    def delete_checkpoint(self, name: str) -> None:
        """Drop checkpoint `name`.

        Raises:
            ValueError: It is no such name as `checkpoint` takes.
            LookupError: There is no checkpoint of this name.
        """
        self._channel.delete_checkpoint(_checked(name))

    @contextmanager
    def workspace(self, checkpoint: str) -> Iterator[Self]:
        """A handle of the same machine whose workspace is a private copy of a checkpoint.

        The copy is an overlay or a clone where the machine can make one, so that its size does
        not matter; it is gone after the `with` block.

        Args:
            checkpoint: Its name.

        Raises:
            ValueError: It is no such name as `checkpoint` takes.
            LookupError: There is no checkpoint of this name.
        """
        path = self._channel.make_workspace(_checked(checkpoint))
        copy = dataclasses.replace(
            self.attachment, channel=self._channel.with_base(path), workdir=decode_name(path)
        )
        try:
            yield type(self)(copy)
        finally:
            self._channel.drop_workspace(path)


def _checked(name: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"name={name!r}: expected the name of a checkpoint, as str")
    if name == PRISTINE:
        raise ValueError(f"{name!r} is the plugin's own checkpoint: expected another name")
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is no name of a checkpoint: expected at most 100 of letters, digits, "
            "'.', '_' and '-', no sign first"
        )
    return name
