"""Talking HTTP to a server in the machine, so that cassettes keep it."""

from __future__ import annotations

from pytest_flymachines._http import Client, Transport
from pytest_flymachines.sandbox.arguments import (
    check_port,
    check_seconds,
)
from pytest_flymachines.sandbox.ports import PortVerbs

__all__ = ["HttpVerbs"]


class HttpVerbs(PortVerbs):
    """HTTP to what listens in the machine."""

    def http(self, port: int, *, timeout: float = 30.0) -> Client:
        """An `httpx.Client` whose base URL is a port of the machine.

        Unlike traffic to `url(port)`, what goes through it is recorded and replayed.

        Args:
            port: What a server in the machine listens on.
            timeout: Seconds without any progress after which a request fails.

        Raises:
            ValueError: `port` is not from 1 to 65535, or `timeout` not above 0.
            FlyMachinesError: There is no way to the machine's ports.
        """
        check_port(port)
        check_seconds("timeout", timeout, above_0=True)
        at = self.attachment
        base_url = f"http://127.0.0.1:{port}"
        transport: Transport | None = None
        if not at.replayed:
            from pytest_flymachines._http import PoolTransport

            base_url, transport = self.url(port), PoolTransport()
        return Client(
            base_url=base_url,
            transport=at.recorded(transport, f"port {port}") if at.recorded else transport,
            timeout=timeout,
            trust_env=False,
        )
