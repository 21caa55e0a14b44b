"""`MachinesClient`: all calls, over one transport."""

from __future__ import annotations

from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from pytest_flymachines import __version__
from pytest_flymachines._clock import Clock, SystemClock
from pytest_flymachines._http import Http, Transport
from pytest_flymachines.api.apps import AppCalls
from pytest_flymachines.api.execution import ExecCalls
from pytest_flymachines.api.leases import LeaseCalls
from pytest_flymachines.api.metadata import MetadataCalls
from pytest_flymachines.api.stack import build_transport
from pytest_flymachines.api.tokens import authorization
from pytest_flymachines.api.volumes import VolumeCalls
from pytest_flymachines.api.waiting import WaitCalls
from pytest_flymachines.errors import SettingsError

__all__ = ["MachinesClient"]

PUBLIC_URL = "https://api.machines.dev"


class MachinesClient(WaitCalls, ExecCalls, MetadataCalls, LeaseCalls, VolumeCalls, AppCalls):
    """Fly.io's Machines API, synchronous and safe to share between threads.

    Failures that a repeat cannot make worse are repeated, the pace stays within Fly's limits,
    and everything else raises an `ApiError` or `ApiUnreachable`.
    """

    _base_url = ""  # for a repr while `__init__` fails

    def __init__(
        self,
        token: str,
        *,
        base_url: str = PUBLIC_URL,
        transport: Transport | None = None,
        clock: Clock | None = None,
        pace: bool = True,
    ) -> None:
        """Make a client; nothing is sent yet.

        Args:
            token: As Fly's tools print it, with or without `Bearer` or `FlyV1` in front, also
                several parts with commas. Empty: none is sent, for `/.fly/api` in a machine.
            base_url: Scheme, host and port of the API; a path is ignored, as Fly's own client
                does. Within Fly's private network also `http://_api.internal:4280`.
            transport: What carries the requests, see `build_transport`; by default one with
                its own connections, closed with the client. One that is given stays open.
            clock: Time for the calls that wait.
            pace: Without `transport`: keep within Fly's rate limits.

        Raises:
            SettingsError: `base_url` or `token` makes no sense.
        """
        try:
            self._base_url = _origin(base_url)
            header = authorization(token)
        finally:
            del token  # tracebacks may show locals
        self._own_transport: Transport | None = None
        if transport is None:
            from pytest_flymachines._http import PoolTransport

            transport = self._own_transport = build_transport(PoolTransport(), pace=pace)
        headers = {"user-agent": f"pytest-flymachines/{__version__}", "accept": "application/json"}
        self._http = Http(
            transport,
            self._base_url,
            headers | ({"authorization": header} if header else {}),
        )
        self._clock = clock or SystemClock()

    @property
    def base_url(self) -> str:
        """Scheme, host and port of the API."""
        return self._base_url

    def __repr__(self) -> str:
        return f"MachinesClient(base_url={self._base_url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections, unless the transport was given."""
        if self._own_transport is not None:
            self._own_transport.close()


def _origin(url: str) -> str:
    """Scheme, host and port of a URL."""
    try:
        parts = urlsplit(url.strip())
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        parts, port = urlsplit(""), ""
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingsError(f"base_url={url!r}: expected a URL such as {PUBLIC_URL}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{port}"
