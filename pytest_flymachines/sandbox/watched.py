"""A channel that, when nobody answers, says whether the machine is to blame."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, cast

from pytest_flymachines.errors import AgentUnavailable, MachineGone, NotFound
from pytest_flymachines.sandbox.channel import Channel

__all__ = ["watched"]


def watched(channel: Channel, state: Callable[[], str], machine_id: str) -> Channel:
    """The same channel; an `AgentUnavailable` of a machine that does not run is `MachineGone`.

    Args:
        channel: The way into the machine.
        state: Asks the API for the machine's state; may raise `NotFound`.
        machine_id: For the message.
    """
    return cast("Channel", _Watched(channel, state, machine_id))


class _Watched:
    def __init__(self, channel: Channel, state: Callable[[], str], machine_id: str) -> None:
        self._channel = channel
        self._state = state
        self._machine_id = machine_id

    def __getattr__(self, name: str) -> Any:
        """Called once for each name: what it finds is kept."""
        found = getattr(self._channel, name)
        if callable(found):
            found = self._watch(found)
        setattr(self, name, found)
        return found

    def _watch(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                result = method(*args, **kwargs)
            except AgentUnavailable as error:
                self._explain(error)
            return self._pieces(result) if isinstance(result, Iterator) else result

        return call

    def _pieces(self, pieces: Iterator[Any]) -> Iterator[Any]:
        try:
            yield from pieces
        except AgentUnavailable as error:
            self._explain(error)

    def _explain(self, error: AgentUnavailable) -> NoReturn:
        try:
            state = self._state()
        except NotFound:
            state = "destroyed"
        if state == "started":
            raise error
        raise MachineGone(
            f"machine {self._machine_id} is {state}: {error}\n"
            "Sandbox.start() or resume() brings a stopped or suspended machine back."
        ) from error
