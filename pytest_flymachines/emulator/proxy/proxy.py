"""The proxy as a whole: the front, the services' ports, the forwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pytest_flymachines.emulator.engines.base import Door
from pytest_flymachines.emulator.proxy.autostop import Action, excess
from pytest_flymachines.emulator.proxy.balancer import Balancer
from pytest_flymachines.emulator.proxy.directory import Caller, Directory
from pytest_flymachines.emulator.proxy.flycast import Flycast, OpenDoor
from pytest_flymachines.emulator.proxy.forwards import Forwards
from pytest_flymachines.emulator.proxy.gateway import Gateway
from pytest_flymachines.emulator.proxy.headers import Headers
from pytest_flymachines.emulator.proxy.listener import Listener, dialled
from pytest_flymachines.emulator.proxy.loads import Loads
from pytest_flymachines.emulator.proxy.services import Services
from pytest_flymachines.emulator.proxy.tls import Tls
from pytest_flymachines.emulator.proxy.upstream import Upstreams
from pytest_flymachines.emulator.proxy.visitors import Visitors

__all__ = ["Proxy", "start_proxy"]


async def start_proxy(
    directory: Directory,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    names: Sequence[str] = (),
    edge: str = "ord",
    patience_s: float = 5.0,
    open_door: OpenDoor | None = None,
    sign: Callable[[Caller], Headers] | None = None,
) -> Proxy:
    """Begin to serve.

    Args:
        directory: The emulator's apps and machines.
        host: The address of everything that listens.
        port: Of the front; 0 takes a free one.
        names: Names of this computer that certificates hold beside loopback's and `host`.
        edge: The region where visitors enter.
        patience_s: How long a request waits for a machine that can take it, and for its program
            to listen, before it is answered with an error.
        open_door: Lets the proxy listen in the machines' networks, for flycast; None: it cannot.
        sign: Gives the headers that say which machine a request comes from; None: none.

    Raises:
        OSError: The port is taken.
    """
    return Proxy(
        directory,
        host=host,
        port=port,
        names=names,
        edge=edge,
        patience_s=patience_s,
        open_door=open_door or _no_door,
        sign=sign or (lambda _: []),
    )


async def _no_door(_: Door) -> None:
    return None


class Proxy:
    """Everything that listens for visitors; see `start_proxy`.

    Attributes:
        forwards: Raw ways into machines.
    """

    def __init__(
        self,
        directory: Directory,
        *,
        host: str,
        port: int,
        names: Sequence[str],
        edge: str,
        patience_s: float,
        open_door: OpenDoor,
        sign: Callable[[Caller], Headers],
    ) -> None:
        self._directory = directory
        self._loads = Loads()
        self._balancer = Balancer(directory, self._loads, edge=edge, patience_s=patience_s)
        self._upstreams = Upstreams(directory.connect)
        self._tls = Tls([dialled(host), *names])
        gateway = Gateway(self._balancer, self._upstreams, self._listing_of, sign)
        self._visitors = visitors = Visitors(gateway, self._balancer, self._tls)
        self._front = Listener.at(visitors.serve_front, host, port)
        self._services = Services(directory, visitors, host, edge)
        self._flycast = Flycast(directory, visitors, self._services.ports, open_door)
        self.forwards = Forwards(directory, host)

    @property
    def url(self) -> str:
        """Of the front: requests go by their `Host: <app>.fly.dev[:<external port>]`."""
        return f"http://{self._front.address}"

    def listing(self) -> dict[str, dict[int, str]]:
        """`host:port` of each external port of each app, on this computer."""
        return self._services.listing()

    def udp_listing(self) -> dict[str, dict[int, str]]:
        """The same for ports of services with the protocol `udp`."""
        return self._services.udp_listing()

    def sync(self, app: str) -> None:
        """Take note that machines of an app have come, gone or changed."""
        self._services.sync(app)
        self._flycast.sync(app)
        self.forwards.sync()
        self._loads.changed()

    def idle_machines(self, app: str, *, idle_s: float = 60.0) -> dict[str, Action]:
        """The machines of an app that autostop wants to end now, at most one per region.

        To be called again and again, on Fly every few minutes; the caller does the stopping.

        Args:
            app: Name of the app.
            idle_s: How long a machine without work is left alone.

        Returns:
            `stop` or `suspend`, by machine id.
        """
        return excess(self._directory.machines(app), self._loads, idle_s=idle_s)

    async def ca_pem(self) -> bytes:
        """The CA behind the certificates of the services with TLS."""
        return await self._tls.ca_pem()

    async def close(self) -> None:
        """End every connection and stop listening."""
        await self._front.close()
        await self._services.close()
        await self._flycast.close()
        await self.forwards.end()
        await self._balancer.close()
        self._upstreams.close()
        await self._tls.close()

    def _listing_of(self, app: str) -> dict[int, str]:
        return self._services.listing().get(app, {})
