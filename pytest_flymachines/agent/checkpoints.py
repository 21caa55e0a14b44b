"""Checkpoints of the base directory and private copies of them, over the agent's HTTP."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import msgspec

from pytest_flymachines.agent.answers import Made, Names, unpack
from pytest_flymachines.agent.base import Based
from pytest_flymachines.errors import NotFound
from pytest_flymachines.sandbox.channel import no_checkpoint

__all__ = ["Checkpoints"]

# Copying takes as long as the machine's disk needs.
COPY_TIMEOUT_S = 600.0

_made = msgspec.json.Decoder(Made)
_names = msgspec.json.Decoder(Names)


class Checkpoints(Based):
    """The part of `Channel` that is about checkpoints and workspaces."""

    def save_checkpoint(self, name: str) -> None:
        """See `Channel.save_checkpoint`."""
        body = {"name": name, **self._directory()}
        self._client.call("POST", "/agent/checkpoints", body, timeout_s=COPY_TIMEOUT_S)

    def restore_checkpoint(self, name: str) -> None:
        """See `Channel.restore_checkpoint`."""
        path = f"/agent/checkpoints/{quote(name, safe='')}/restore"
        with self._named(name):
            self._client.call("POST", path, self._directory(), timeout_s=COPY_TIMEOUT_S)

    def delete_checkpoint(self, name: str) -> None:
        """See `Channel.delete_checkpoint`."""
        path = f"/agent/checkpoints/{quote(name, safe='')}"
        with self._named(name):
            self._client.call("DELETE", path, again=False)

    def checkpoints(self) -> list[str]:
        """See `Channel.checkpoints`."""
        answer = self._client.call("GET", "/agent/checkpoints")
        return [unpack(name).decode() for name in _names.decode(answer).checkpoints]

    def make_workspace(self, checkpoint: str) -> bytes:
        """See `Channel.make_workspace`."""
        with self._named(checkpoint):
            answer = self._client.call(
                "POST",
                "/agent/workspaces",
                {"checkpoint": checkpoint},
                timeout_s=COPY_TIMEOUT_S,
                again=False,
            )
        return unpack(_made.decode(answer).path)

    def drop_workspace(self, path: bytes) -> None:
        """See `Channel.drop_workspace`."""
        name = quote(posixpath.basename(path), safe="")
        self._client.call("DELETE", f"/agent/workspaces/{name}", again=False)

    @contextmanager
    def _named(self, name: str) -> Iterator[None]:
        """Says of a checkpoint that is not there what the Machines API's channel says of it."""
        try:
            yield
        except NotFound as error:
            raise no_checkpoint(name, self._client.machine_id) from error

    def _directory(self) -> dict[str, Any]:
        """The directory that is meant; the agent's own base is not named."""
        return {"path": self._path(b"")} if self._base else {}
