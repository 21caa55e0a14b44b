"""The transports beneath a client, put together."""

from __future__ import annotations

from pathlib import Path

from pytest_flymachines._http import Transport
from pytest_flymachines.api.affinity import AffinityTransport
from pytest_flymachines.api.pacing import PacingTransport
from pytest_flymachines.api.retry import RETRY_S, RetryTransport

__all__ = ["build_transport"]


def build_transport(
    pool: Transport,
    *,
    pace: bool = True,
    pace_directory: Path | None = None,
    retry_s: float = RETRY_S,
) -> Transport:
    """Retries, over pacing, over cookies, over a pool of connections.

    Args:
        pool: What owns the sockets, such as a `PoolTransport`; closed with the result.
        pace: Keep within Fly's rate limits; pointless against a server without them.
        pace_directory: Where the processes of a run share their pace; None: each has its own.
        retry_s: Seconds from a request's first attempt after which no other one is made.
    """
    transport: Transport = AffinityTransport(pool)
    if pace:
        transport = PacingTransport(transport, directory=pace_directory)
    return RetryTransport(transport, retry_s=retry_s)
