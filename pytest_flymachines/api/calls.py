"""What the transports may know of a request, beside the request itself."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_flymachines._http import Request

__all__ = ["Call", "call_of"]

EXTENSION = "pytest_flymachines.call"


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the Machines API; travels in the request's extensions.

    Attributes:
        action: What is asked for, such as `exec`: Fly limits the rate of each action.
        scope: Machine id, app or organization for which that rate is counted.
        repeat_safe: Sending it twice has the effect of sending it once.
        retry_s: Seconds from the first attempt after which none is begun; None: the
            transport's own limit.
        urgent: It is sent at once, before others that wait for their turn.
    """

    action: str
    scope: str
    repeat_safe: bool = False
    retry_s: float | None = None
    urgent: bool = False


def call_of(request: Request) -> Call | None:
    """The call that a request is; None for one that is not the Machines API's."""
    call = request.extensions.get(EXTENSION)
    return call if isinstance(call, Call) else None
