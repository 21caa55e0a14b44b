"""What the parts of the agent's channel share: the client, and where relative paths start."""

from __future__ import annotations

import posixpath
from urllib.parse import quote

from pytest_flymachines.agent.answers import pack
from pytest_flymachines.agent.client import AgentClient

__all__ = ["Based", "shown"]


class Based:
    """Resolves paths from `base`; an empty one leaves that to the agent."""

    def __init__(self, client: AgentClient, base: bytes) -> None:
        self._client = client
        self._base = base

    def _path(self, path: bytes) -> str | dict[str, str]:
        return pack(self._resolved(path))

    def _quoted(self, path: bytes) -> str:
        return quote(self._resolved(path))

    def _resolved(self, path: bytes) -> bytes:
        return posixpath.join(self._base, path) if path else self._base


def shown(path: bytes) -> str:
    """A path for a message."""
    return path.decode("utf-8", "surrogateescape")
